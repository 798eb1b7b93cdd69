/**
 * Watches whether accesses still come into the spool: somebody else may switch trace events off, or
 * send QEMU's log elsewhere. What was missed meanwhile is a loss between two known times.
 */
import type { Disturbance, SpoolWriter } from '../spool/spool-writer.ts';
import type { Watching } from './watching.ts';

const LOOK_MS = 1000;

export interface WatchOptions extends Watching {
  /** Who writes into the spool. */
  readonly writer: SpoolWriter;
}

interface Answer {
  /** When it was asked. */
  readonly atNs: number;
  readonly found: Disturbance | undefined;
}

export class SourceWatch {
  readonly #options: WatchOptions;
  #lookedAtMs = -Infinity;
  #asking: Promise<Answer> | undefined;
  #answer: Answer | undefined;
  #failure: { readonly error: unknown } | undefined;
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

  /**
   * Asks about once a second, and acts on what has been answered: a QEMU that is slow to answer
   * keeps nobody waiting who has more to do. Throws what asking, or putting back, failed with.
   */
  async look(): Promise<void> {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
    const answer = this.#answer;
    this.#answer = undefined;
    if (answer !== undefined) await this.#act(answer, false);
    if (this.#asking !== undefined || performance.now() - this.#lookedAtMs < LOOK_MS) return;
    this.#lookedAtMs = performance.now();
    this.#asking = this.#ask();
    this.#asking
      .then(
        (found) => (this.#answer = found),
        (error: unknown) => (this.#failure = { error }),
      )
      .finally(() => (this.#asking = undefined));
  }

  /** Asks, and acts at once: where a recording begins again, and where it ends. Throws as `look`. */
  async lookNow(isLast: boolean): Promise<void> {
    await this.#asking?.catch(() => undefined);
    this.#answer = undefined;
    this.#failure = undefined;
    await this.#act(await this.#ask(), isLast);
    this.#lookedAtMs = performance.now();
  }

  /** It was seen otherwise, and is as it was already. */
  async wasAmiss(what: string): Promise<void> {
    await this.#act({ atNs: this.#options.nowNs(), found: { what } }, false);
  }

  async #ask(): Promise<Answer> {
    const atNs = this.#options.nowNs();
    return { atNs, found: await this.#options.writer.disturbance() };
  }

  async #act({ atNs, found }: Answer, isLast: boolean): Promise<void> {
    const { spool, journal, nowNs, onProblem } = this.#options;
    if (found === undefined && !this.#isLeft) {
      this.#goodNs = atNs;
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
    this.#isLeft = found?.putBack !== undefined && this.#hasPutBack;
    if (found === undefined || isLast) return;
    if (this.#isLeft) {
      onProblem(
        'it was put back once, and is left as it is now: accesses are missing from here on',
      );
      return;
    }
    this.#hasPutBack ||= found.putBack !== undefined;
    await found.putBack?.();
    this.#goodNs = nowNs();
    const text = `accesses come again: ${found.what} no longer`;
    journal.add({ at: await spool.end(), event: { kind: 'notice', timeNs: this.#goodNs, text } });
    onProblem('put back: accesses come again');
  }
}
