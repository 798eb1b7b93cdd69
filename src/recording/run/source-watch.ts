/**
 * Watches whether accesses still come into the spool: somebody else may switch trace events off, or
 * send QEMU's log elsewhere. What was missed meanwhile is a loss between two known times.
 */
import type { Journal } from '../session/journal.ts';
import type { Spool } from '../spool/spool.ts';
import type { SpoolWriter } from '../spool/spool-writer.ts';

const LOOK_MS = 1000;

export interface WatchOptions {
  readonly spool: Spool;
  readonly journal: Journal;
  readonly writer: SpoolWriter;
  /** Session time up to which all is known to have come. */
  readonly goodNs: number;
  readonly nowNs: () => number;
  readonly onProblem: (message: string) => void;
}

export class SourceWatch {
  readonly #options: WatchOptions;
  #lookedAtMs = -Infinity;
  /** When it was last seen that accesses come. */
  #goodNs: number;
  /** Twice would be a quarrel with whoever does it. */
  #hasPutBack = false;
  /** It is amiss, and stays so. */
  #isLeft = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#goodNs = options.goodNs;
  }

  /** About once a second; throws what QMP does. */
  async look(): Promise<void> {
    if (performance.now() - this.#lookedAtMs < LOOK_MS) return;
    await this.#look(false);
    this.#lookedAtMs = performance.now();
  }

  /** The recording ends now. */
  async lookLast(): Promise<void> {
    await this.#look(true);
  }

  async #look(isLast: boolean): Promise<void> {
    const { spool, journal, writer, nowNs, onProblem } = this.#options;
    const beganNs = nowNs();
    const found = await writer.disturbance();
    if (found === undefined && !this.#isLeft) {
      this.#goodNs = beganNs;
      return;
    }
    if (found !== undefined && this.#isLeft && !isLast) return;
    const timeNs = this.#goodNs;
    const durationNs = nowNs() - timeNs;
    const reason = `${found?.what ?? 'trace events were off'}, by somebody else`;
    const at = await spool.end();
    journal.add({ at, event: { kind: 'loss', timeNs, count: -1, durationNs, reason } });
    const seconds = (durationNs / 1e9).toFixed(1);
    onProblem(`${reason}: accesses of the last ${seconds} s may be missing`);
    this.#goodNs = timeNs + durationNs;
    this.#isLeft = found !== undefined && this.#hasPutBack;
    if (found === undefined || isLast) return;
    if (this.#isLeft) {
      onProblem(
        'it was put back once, and is left as it is now: accesses are missing from here on',
      );
      return;
    }
    this.#hasPutBack = true;
    await found.putBack();
    this.#goodNs = nowNs();
    const text = `accesses come again: ${found.what} no longer`;
    journal.add({ at: await spool.end(), event: { kind: 'notice', timeNs: this.#goodNs, text } });
    onProblem('put back: accesses come again');
  }
}
