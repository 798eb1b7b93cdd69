import { hex } from '../base/format.ts';
import type { Register } from './register.ts';
import { bytesOf, valueOf } from './values.ts';

/**
 * What is at offsets without a register: reads give zeros or ones and writes change nothing, or it
 * is memory that keeps what is written.
 */
export type Undeclared = 'zeros' | 'ones' | 'memory';

export interface RegisterFileOptions {
  readonly sizeBytes: number;
  readonly registers?: readonly Register[];
  /** `zeros` if left out. */
  readonly undeclared?: Undeclared;
}

/** A region of a device. An access may reach several registers, parts of them, and what is between. */
export class RegisterFile {
  readonly sizeBytes: number;
  readonly #registers: readonly Register[];
  /** By each offset that a register covers. */
  readonly #at = new Map<number, Register>();
  readonly #blank: number;
  readonly #memory: Uint8Array | undefined;

  /** Throws RangeError where registers lie over each other or outside the region. */
  constructor(options: RegisterFileOptions) {
    const { sizeBytes, registers = [], undeclared = 'zeros' } = options;
    this.sizeBytes = sizeBytes;
    this.#registers = registers;
    this.#blank = undeclared === 'ones' ? 0xff : 0;
    this.#memory = undeclared === 'memory' ? new Uint8Array(sizeBytes) : undefined;
    for (const register of registers) this.#place(register);
  }

  #place(register: Register): void {
    const { offset, width } = register;
    const at = `the register at ${hex(offset)}`;
    if (!Number.isInteger(offset) || offset < 0 || offset + width > this.sizeBytes) {
      throw new RangeError(`${at} is outside of its region of ${this.sizeBytes} bytes`);
    }
    for (let byte = offset; byte < offset + width; byte++) {
      const other = this.#at.get(byte);
      if (other !== undefined) {
        throw new RangeError(`${at} lies over the one at ${hex(other.offset)}`);
      }
      this.#at.set(byte, register);
    }
  }

  /** Registers as at first, and memory of zeros. */
  reset(): void {
    for (const register of this.#registers) register.reset();
    this.#memory?.fill(0);
  }

  /** @param offset of an access that lies within the region, as for `write` */
  read(offset: number, lengthBytes: number): Buffer {
    const bytes = Buffer.alloc(lengthBytes, this.#blank);
    const end = offset + lengthBytes;
    for (let at = offset; at < end;) {
      const register = this.#at.get(at);
      if (register === undefined) {
        if (this.#memory !== undefined) bytes[at - offset] = this.#memory[at] ?? 0;
        at++;
        continue;
      }
      const whole = bytesOf(register.read(), register.width);
      const next = Math.min(end, register.offset + register.width);
      bytes.set(whole.subarray(at - register.offset, next - register.offset), at - offset);
      at = next;
    }
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    for (let at = offset; at < end;) {
      const register = this.#at.get(at);
      if (register === undefined) {
        if (this.#memory !== undefined) this.#memory[at] = bytes[at - offset] ?? 0;
        at++;
        continue;
      }
      const next = Math.min(end, register.offset + register.width);
      const shift = BigInt(8 * (at - register.offset));
      const written = valueOf(bytes.subarray(at - offset, next - offset));
      const reached = (1n << BigInt(8 * (next - at))) - 1n;
      register.write(written << shift, reached << shift);
      at = next;
    }
  }
}
