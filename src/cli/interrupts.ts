/**
 * Ctrl-C and its like, caught from before a recording is begun: a QEMU that has just been started,
 * or told to log for us, must not be left behind. What comes too early waits for its listener.
 */
export type Interrupt = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

const SIGNALS: readonly Interrupt[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

export class Interrupts {
  #early: Interrupt | undefined;
  #listener: ((signal: Interrupt) => void) | undefined;
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (this.#listener === undefined) this.#early = signal as Interrupt;
    else this.#listener(signal as Interrupt);
  };

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  /** However many came before, they count as one. */
  listen(listener: (signal: Interrupt) => void): void {
    this.#listener = listener;
    if (this.#early !== undefined) listener(this.#early);
  }

  /** For the next listener: one came, and was not for this one. */
  remember(signal: Interrupt | undefined): void {
    this.#listener = undefined;
    this.#early = signal;
  }

  /** From now on they end the process again. */
  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}
