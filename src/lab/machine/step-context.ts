/** What a step has at hand while it is taken. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError } from '../../base/errors.ts';
import { formatDuration } from '../language/duration.ts';
import type { StepHead } from '../language/scenario.ts';
import type { LabRun } from './lab-run.ts';
import type { Machine } from './machine.ts';

const POLL_MS = 20;

export class StepContext {
  readonly lab: LabRun;
  readonly step: StepHead;
  /** Aborted by Ctrl-C, with the error to fail with. */
  readonly signal: AbortSignal;
  readonly #deadline: number;
  /** Where its files go, in the run folder. */
  readonly dir: string;

  constructor(lab: LabRun, step: StepHead, number: number, signal: AbortSignal) {
    this.lab = lab;
    this.step = step;
    this.signal = signal;
    this.#deadline = performance.now() + step.limitMs;
    const name = step.name.replaceAll(/[^A-Za-z0-9._-]+/g, '-').replaceAll(/^-+|-+$/g, '');
    this.dir = `steps/${String(number).padStart(2, '0')}-${name}`;
  }

  get machine(): Machine {
    return this.lab.requireMachine();
  }

  /** What is left of the step's time, in milliseconds; at least 1. */
  get leftMs(): number {
    return Math.max(1, this.#deadline - performance.now());
  }

  /** For what waits by itself. */
  get limit(): { readonly timeoutMs: number; readonly signal: AbortSignal } {
    return { timeoutMs: this.leftMs, signal: this.signal };
  }

  /** A file of this step, as the run's folder has it. */
  fileName(name: string): string {
    return `${this.dir}/${name}`;
  }

  /** A file of this step in the run's folder, by its path there; its folder is made. */
  saved(name: string): Promise<string> {
    return this.lab.folder.path(this.fileName(name));
  }

  /**
   * Looks again and again until something is there. Throws MmioError `timeout` when the step's time is
   * over, `closed` when the VM has ended before.
   *
   * @param what is waited for: `the text /login:/ on the serial port console`
   * @param evidence what there is instead, asked for when it is over
   */
  async until<T>(
    look: () => T | undefined | Promise<T | undefined>,
    what: string,
    evidence: () => string | Promise<string> = () => '',
    pollMs = POLL_MS,
  ): Promise<T> {
    for (;;) {
      this.signal.throwIfAborted();
      // Asked first: what came with the VM's last breath is still found.
      const ended = this.lab.machine?.end;
      const found = await look();
      if (found !== undefined) return found;
      if (ended !== undefined) {
        throw new MmioError('closed', `the VM ended while the step waited for ${what}`, {
          evidence: [await this.lab.lastWords(), await evidence()].filter(Boolean).join('\n'),
        });
      }
      if (performance.now() > this.#deadline) {
        throw new MmioError(
          'timeout',
          `${what} did not come within ${formatDuration(this.step.limitMs)}`,
          {
            evidence: (await evidence()) || undefined,
            hint: 'give the step a longer time-limit, or look at what it waits for',
          },
        );
      }
      await sleep(pollMs, undefined, { signal: this.signal }).catch(() => undefined);
    }
  }

  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.signal }).catch(() => undefined);
    this.signal.throwIfAborted();
  }
}
