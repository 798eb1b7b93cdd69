import type { MmioError } from '../base/errors.ts';

export interface WaitOptions {
  /** Milliseconds; more than 24 days, or Infinity, is no limit. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Node fires a timer of more than this at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * A promise of something that the other side says later, with a time limit and an abort signal.
 * It remembers where it was made, so that an error found in a socket's handler shows its caller.
 */
export class Waiter<T> {
  readonly promise: Promise<T>;
  readonly #site = new Error('call site');
  readonly #onSettled: (gaveUp: boolean) => void;
  readonly #signal: AbortSignal | undefined;
  #settled = false;
  #timer: NodeJS.Timeout | undefined;
  #resolve: (value: T) => void = ignore;
  #reject: (error: Error) => void = ignore;

  /**
   * `onSettled` runs once, however it ends, told whether we gave up (time limit, signal); not for a
   * signal that was aborted beforehand.
   */
  constructor(
    options: WaitOptions,
    timedOut: () => MmioError,
    onSettled: (gaveUp: boolean) => void = ignore,
  ) {
    this.promise = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#signal = options.signal;
    this.#onSettled = this.#signal?.aborted === true ? ignore : onSettled;
    if (this.#signal?.aborted === true) {
      this.#abort();
      return;
    }
    this.#signal?.addEventListener('abort', this.#abort, { once: true });
    const { timeoutMs } = options;
    if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
      this.#timer = setTimeout(() => this.#fail(timedOut(), true), timeoutMs);
    }
  }

  get settled(): boolean {
    return this.#settled;
  }

  resolve(value: T): void {
    this.#settle(false, () => this.#resolve(value));
  }

  /** Rejects with `error`, its stack replaced by that of whoever waits. */
  fail(error: MmioError): void {
    this.#fail(error, false);
  }

  #fail(error: MmioError, gaveUp: boolean): void {
    const frames = this.#site.stack ?? '';
    const first = frames.indexOf('\n    at ');
    error.stack = `${error.name}: ${error.message}${first === -1 ? '' : frames.slice(first)}`;
    this.#settle(gaveUp, () => this.#reject(error));
  }

  readonly #abort = (): void => {
    const reason: unknown = this.#signal?.reason;
    const error = reason instanceof Error ? reason : new Error('aborted', { cause: reason });
    this.#settle(true, () => this.#reject(error));
  };

  #settle(gaveUp: boolean, how: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#abort);
    how();
    this.#onSettled(gaveUp);
  }
}

function ignore(): void {
  // nothing to do
}
