/**
 * Watches the spool while the recorder works or waits: has QEMU go on in a new segment when one is
 * full, and keeps the whole below its limit by pausing the guest or by dropping. Between that it has
 * the source looked at.
 */
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError } from '../../base/errors.ts';
import { bytes } from '../../base/format.ts';
import type { Vm } from '../../machine/vm.ts';
import { moveLog } from '../spool/move-log.ts';
import { ELSEWHERE } from '../spool/spool-writer.ts';
import type { RoomWatch } from './room-watch.ts';
import { SourceWatch, type WatchOptions } from './source-watch.ts';

export const SEGMENT_BYTES = 64 * 1024 * 1024;
const CHECK_MS = 25;
/** A QEMU that does not answer is not waited for at the end. */
const LAST_LOOK_MS = 1000;
/** So many times what came between two checks may come until the guest stands still. */
const RESERVE_CHECKS = 4;
/** Of the limit: kept free at least, and at most. */
const RESERVE_MIN = 1 / 8;
const RESERVE_MAX = 1 / 2;
const MIN_RESERVE_BYTES = 16 * 1024 * 1024;

export interface GuardOptions extends WatchOptions {
  readonly vm: Vm;
  readonly overflow: 'pause' | 'drop';
  readonly limitBytes: number;
  /** A file that is there while the guest stands still because of us. */
  readonly pausedFlag: string;
  readonly alreadyPaused: boolean;
  /** A file that is there while trace events are off because of us. */
  readonly droppingFlag: string;
  /** undefined: what finds no room in the spool is not lost. */
  readonly room: RoomWatch | undefined;
}

export class SpoolGuard {
  readonly #options: GuardOptions;
  readonly #segmentBytes: number;
  readonly #watch: SourceWatch;
  #usedBefore = 0;
  /** The most that came between two checks lately. */
  #burstBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #busy: Promise<void> = Promise.resolve();
  #stopped = false;
  #paused: boolean;
  #droppingSinceNs: number | undefined;
  /** What it is held for, in words. */
  #heldUntil = 'the outputs have caught up';
  #rotationProblem: string | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#paused = options.alreadyPaused;
    this.#watch = new SourceWatch(options);
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

  async start(): Promise<void> {
    await this.#afterDroppingRecorder();
    await this.#watch.lookNow(false).catch((error: unknown) => this.#problem(error));
    this.#schedule();
  }

  /** The recorder before us was killed while it dropped: end it, and say so. */
  async #afterDroppingRecorder(): Promise<void> {
    const { droppingFlag, spool, journal, writer, nowNs } = this.#options;
    if (!existsSync(droppingFlag)) return;
    await writer.trace(true);
    const text = 'trace events on again';
    journal.add({ at: await spool.end(), event: { kind: 'notice', timeNs: nowNs(), text } });
    await rm(droppingFlag, { force: true });
  }

  /** Ends watching; waits for a check that is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#busy;
  }

  /** As `stop`, of a recording that is about to be taken off QEMU. */
  async finish(): Promise<void> {
    await this.stop();
    await this.#options.room?.finish();
    if (this.dropping || this.#options.vm.isEnding) return;
    const late = sleep(LAST_LOOK_MS, undefined, { ref: false });
    await Promise.race([this.#watch.lookNow(true), late]).catch((error: unknown) => {
      if (this.#options.vm.qmp.state === 'closed') return;
      this.#options.onProblem(
        `whether accesses came until the end is not known: ${describeError(error)}`,
      );
    });
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
    const message = describeError(error);
    if (message !== this.#rotationProblem) this.#options.onProblem(message);
    this.#rotationProblem = message;
  }

  async #check(): Promise<void> {
    const { spool, limitBytes } = this.#options;
    const used = await spool.usedBytes();
    // The limit is ours; others may fill the file system, too.
    const free = await spool.freeBytes();
    // Where the loss cannot be written down it is tried again; pausing does not wait for that.
    await this.#options.room?.look(free).catch((error: unknown) => this.#problem(error));
    this.#burstBytes = Math.max(used - this.#usedBefore, this.#burstBytes * 0.9);
    this.#usedBefore = used;
    const least = Math.min(MIN_RESERVE_BYTES, limitBytes * RESERVE_MIN);
    const wanted = Math.max(least, this.#burstBytes * RESERVE_CHECKS);
    const reserve = Math.min(wanted, limitBytes * RESERVE_MAX);
    if (Math.min(limitBytes - used, free) < reserve) await this.#hold(used, free);
    else if (used <= limitBytes / 4 && free > 2 * reserve) await this.#letGo();
    const { offset } = await spool.end();
    const held = this.#paused || this.dropping;
    // While nothing is written, what has been read can be released only if QEMU is elsewhere.
    if (offset > this.#segmentBytes || (held && offset > 0)) await this.#rotate();
    if (!this.dropping && !this.#options.vm.isEnding) await this.#watch.look();
  }

  async #rotate(): Promise<void> {
    const { spool, writer } = this.#options;
    if (!spool.adoptNext()) {
      const { newestSegment } = spool;
      const how = await moveLog(writer, spool.currentPath, spool.nextPath);
      if (how === 'left') {
        await this.#watch.lookNow(false);
        // Not every writer keeps a segment open.
        if (spool.newestSegment === newestSegment) await writer.logInto(spool.nextPath);
      }
      if (spool.newestSegment === newestSegment) spool.advanceWriter();
      if (how === 'back') await this.#watch.wasAmiss(ELSEWHERE);
    }
    this.#rotationProblem = undefined;
  }

  async #hold(usedBytes: number, freeBytes: number): Promise<void> {
    const { vm, writer, overflow, pausedFlag, droppingFlag, journal, spool, onProblem } =
      this.#options;
    const isOurs = freeBytes > this.#options.limitBytes - usedBytes;
    const held = `the spool holds ${bytes(usedBytes)}`;
    const others = `${spool.dir} has ${bytes(freeBytes)} of room left`;
    const why = isOurs ? held : others;
    const until = isOurs ? 'the outputs have caught up' : 'there is more room';
    this.#heldUntil = until;
    if (overflow === 'pause') {
      // Also where it was paused before, and somebody has let it go.
      if (vm.isEnding || !(await vm.isRunning())) return;
      await writeFile(pausedFlag, '');
      await vm.pause();
      this.#paused = true;
      onProblem(`${why}: the guest is paused until ${until}`);
      return;
    }
    if (this.dropping) return;
    // Noted before, and what ends it after: events go off and on one by one, and no access may be
    // missing outside of the two marks.
    const timeNs = this.#options.nowNs();
    const reason = `the spool was full (${why}): trace events switched off`;
    const at = await spool.end();
    journal.add({ at, event: { kind: 'loss', timeNs, count: -1, durationNs: 0, reason } });
    this.#droppingSinceNs = timeNs;
    await writeFile(droppingFlag, '');
    await writer.trace(false);
    onProblem(`${why}: accesses are dropped until ${until}`);
  }

  async #letGo(): Promise<void> {
    const { vm, writer, pausedFlag, droppingFlag, journal, spool, onProblem, nowNs } =
      this.#options;
    if (this.#paused) {
      await vm.resume();
      await rm(pausedFlag, { force: true });
      this.#paused = false;
      onProblem(`${this.#heldUntil}: the guest goes on`);
      return;
    }
    if (!this.dropping) return;
    await writer.trace(true);
    const timeNs = nowNs();
    const seconds = ((timeNs - (this.#droppingSinceNs ?? timeNs)) / 1e9).toFixed(6);
    const text = `trace events on again after ${seconds} s`;
    journal.add({ at: await spool.end(), event: { kind: 'notice', timeNs, text } });
    await rm(droppingFlag, { force: true });
    this.#droppingSinceNs = undefined;
    onProblem(`${this.#heldUntil}: accesses are recorded again`);
  }
}
