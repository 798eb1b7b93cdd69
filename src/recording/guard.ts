/**
 * Watches the spool while the recorder works or waits: has QEMU go on in a new segment when one is
 * full, and keeps the whole below its limit by pausing the guest or by dropping.
 */
import { rm, writeFile } from 'node:fs/promises';
import type { Vm } from '../machine/vm.ts';
import type { Journal } from './journal.ts';
import type { Spool } from './spool.ts';

export const SEGMENT_BYTES = 64 * 1024 * 1024;
const CHECK_MS = 25;

export interface GuardOptions {
  readonly spool: Spool;
  readonly journal: Journal;
  readonly vm: Vm;
  readonly overflow: 'pause' | 'drop';
  readonly limitBytes: number;
  /** A file that is there while the guest stands still because of us. */
  readonly pausedFlag: string;
  readonly alreadyPaused: boolean;
  readonly nowNs: () => number;
  readonly onProblem: (message: string) => void;
}

export class SpoolGuard {
  readonly #options: GuardOptions;
  readonly #segmentBytes: number;
  #timer: NodeJS.Timeout | undefined;
  #busy: Promise<void> = Promise.resolve();
  #stopped = false;
  #paused: boolean;
  #droppingSinceNs: number | undefined;
  #rotationProblem: string | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#paused = options.alreadyPaused;
    // Small limits (tests, tiny tmpfs) still need segments that can be released one by one.
    this.#segmentBytes = Math.min(SEGMENT_BYTES, Math.max(64 * 1024, options.limitBytes / 4));
  }

  /** The guest stands still, because the outputs do not keep up. */
  get paused(): boolean {
    return this.#paused;
  }

  get dropping(): boolean {
    return this.#droppingSinceNs !== undefined;
  }

  start(): void {
    this.#schedule();
  }

  /** Ends watching; waits for a check that is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#busy;
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#busy = this.#check()
        .catch((error: unknown) => this.#problem(error))
        .finally(() => this.#schedule());
    }, CHECK_MS);
  }

  #problem(error: unknown): void {
    if (this.#stopped || this.#options.vm.qmp.state === 'closed') return;
    const message = error instanceof Error ? error.message : String(error);
    if (message !== this.#rotationProblem) this.#options.onProblem(message);
    this.#rotationProblem = message;
  }

  async #check(): Promise<void> {
    const { spool, limitBytes } = this.#options;
    const { offset } = await spool.end();
    const used = await spool.usedBytes();
    const full = used > limitBytes;
    const held = this.#paused || this.dropping;
    // While nothing is written, what has been read can be released only if QEMU is elsewhere.
    if (offset > this.#segmentBytes || (held && offset > 0)) await this.#rotate();
    if (full && !held) await this.#hold(used);
    else if (held && used <= limitBytes / 2) await this.#letGo();
  }

  async #rotate(): Promise<void> {
    const { spool, vm } = this.#options;
    await vm.logInto(spool.nextPath);
    spool.advanceWriter();
    this.#rotationProblem = undefined;
  }

  async #hold(usedBytes: number): Promise<void> {
    const { vm, overflow, pausedFlag, journal, spool, onProblem } = this.#options;
    const mib = Math.round(usedBytes / 2 ** 20);
    if (overflow === 'pause') {
      if (!(await vm.isRunning())) return;
      await writeFile(pausedFlag, '');
      await vm.pause();
      this.#paused = true;
      onProblem(`the spool holds ${mib} MiB: the guest is paused until the outputs have caught up`);
      return;
    }
    await vm.trace(false);
    this.#droppingSinceNs = this.#options.nowNs();
    const reason = `the spool was full (${mib} MiB): trace events switched off`;
    const timeNs = this.#droppingSinceNs;
    const at = await spool.end();
    journal.add({ at, event: { kind: 'loss', timeNs, count: -1, durationNs: 0, reason } });
    onProblem(`the spool holds ${mib} MiB: accesses are dropped until the outputs have caught up`);
  }

  async #letGo(): Promise<void> {
    const { vm, pausedFlag, journal, spool, onProblem, nowNs } = this.#options;
    if (this.#paused) {
      await vm.resume();
      await rm(pausedFlag, { force: true });
      this.#paused = false;
      onProblem('the outputs have caught up: the guest goes on');
      return;
    }
    const timeNs = nowNs();
    const seconds = ((timeNs - (this.#droppingSinceNs ?? timeNs)) / 1e9).toFixed(6);
    const at = await spool.end();
    const text = `trace events on again after ${seconds} s`;
    journal.add({ at, event: { kind: 'mark', timeNs, text } });
    await vm.trace(true);
    this.#droppingSinceNs = undefined;
    onProblem('the outputs have caught up: accesses are recorded again');
  }
}
