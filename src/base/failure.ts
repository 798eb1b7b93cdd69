/**
 * What goes wrong where nobody waits: in a timer, in an event's listener, in work that is begun and
 * not awaited. The first of it settles the promise; who runs the whole awaits that.
 */
export class Failure {
  /** Rejects with the first failure; never resolves. */
  readonly promise: Promise<never>;
  #reject: (error: unknown) => void = () => undefined;

  constructor() {
    this.promise = new Promise((_, reject) => (this.#reject = reject));
    // Nobody may be waiting yet, or any more.
    this.promise.catch(() => undefined);
  }

  readonly fail = (error: unknown): void => this.#reject(error);

  /** Runs what may throw, or reject; what it fails with settles the promise. */
  guard(work: () => void | Promise<void>): void {
    try {
      const running = work();
      if (running instanceof Promise) running.catch(this.fail);
    } catch (error) {
      this.fail(error);
    }
  }
}
