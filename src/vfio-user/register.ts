/** Bytes of a register. */
export type RegisterWidth = 1 | 2 | 4 | 8;

export interface RegisterOptions {
  /** In its region. */
  readonly offset: number;
  readonly width: RegisterWidth;
  /** What it holds at first and after a reset; 0 if left out. */
  readonly reset?: bigint;
  /** Bits that take what is written; the others are read-only. All if left out. */
  readonly writable?: bigint;
  /** Bits that a written 1 clears and a written 0 leaves; none if left out. */
  readonly writeOneToClear?: bigint;
  /** What a read gives, made of what the register holds. It may change registers. */
  readonly onRead?: (value: bigint) => bigint;
  /**
   * Called after the register has taken what was written: `written` is that, at its place in the
   * register, with zeros in the bytes that the access did not reach.
   */
  readonly onWrite?: (written: bigint) => void;
}

/**
 * One register of a device. An access may reach a part of it only; values are numbers without sign,
 * of the register's width.
 */
export class Register {
  readonly offset: number;
  readonly width: RegisterWidth;
  readonly #options: RegisterOptions;
  readonly #clearing: bigint;
  readonly #writable: bigint;
  #value = 0n;

  constructor(options: RegisterOptions) {
    this.offset = options.offset;
    this.width = options.width;
    this.#options = options;
    this.#clearing = options.writeOneToClear ?? 0n;
    this.#writable = (options.writable ?? -1n) & ~this.#clearing;
    this.reset();
  }

  /** What it holds. Set from outside, no mask applies and no hook is called. */
  get value(): bigint {
    return this.#value;
  }

  set value(value: bigint) {
    this.#value = BigInt.asUintN(8 * this.width, value);
  }

  reset(): void {
    this.value = this.#options.reset ?? 0n;
  }

  /** What the guest reads. */
  read(): bigint {
    const { onRead } = this.#options;
    return onRead === undefined ? this.#value : BigInt.asUintN(8 * this.width, onRead(this.#value));
  }

  /** What the guest writes into the bits of `reached`. */
  write(written: bigint, reached: bigint): void {
    const writable = this.#writable & reached;
    const cleared = this.#clearing & reached & written;
    this.value = ((this.#value & ~writable) | (written & writable)) & ~cleared;
    this.#options.onWrite?.(written & reached);
  }
}
