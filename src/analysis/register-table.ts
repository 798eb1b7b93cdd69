import type { AccessBatch } from '../model/access-batch.ts';

/** More distinct registers than devices have; what comes after them is one row, "others". */
export const MAX_REGISTERS = 65_536;
/** The number of all registers that have none of their own. */
export const OTHERS = MAX_REGISTERS;

const OFFSET_RANGE = 2 ** 36;

/** Numbers the registers (region and offset) of a recording in order of their first access. */
export class RegisterTable {
  /** By number. */
  readonly region: number[] = [];
  readonly offset: number[] = [];
  readonly #numbers = new Map<number, number>();
  #column = new Uint32Array(1024);
  #lastKey = -1;
  #lastNumber = 0;

  /** @param from registers that have their numbers already */
  constructor(from?: { readonly region: readonly number[]; readonly offset: readonly number[] }) {
    for (const [number, region] of (from?.region ?? []).entries()) {
      const offset = from?.offset[number] ?? 0;
      this.#numberOf(keyOf(region, offset), region, offset);
    }
  }

  /** How many have a number of their own. */
  get length(): number {
    return this.region.length;
  }

  /** The register's number; `OTHERS` if the table was full when it came; -1 if it never came. */
  find(region: number, offset: number): number {
    const full = this.length === MAX_REGISTERS ? OTHERS : -1;
    return this.#numbers.get(keyOf(region, offset)) ?? full;
  }

  /** The register of each row, numbering new ones; overwritten by the next call. */
  column(batch: AccessBatch): Uint32Array {
    if (batch.length > this.#column.length) this.#column = new Uint32Array(batch.capacity);
    const column = this.#column;
    const { region, offset, length } = batch;
    for (let row = 0; row < length; row++) {
      const key = keyOf(region[row]!, offset[row]!);
      // PERF: poll loops read one register thousands of times.
      if (key !== this.#lastKey) {
        this.#lastKey = key;
        this.#lastNumber = this.#numberOf(key, region[row]!, offset[row]!);
      }
      column[row] = this.#lastNumber;
    }
    return column;
  }

  #numberOf(key: number, region: number, offset: number): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const number = this.length;
    if (number === MAX_REGISTERS) return OTHERS;
    this.#numbers.set(key, number);
    this.region.push(region);
    this.offset.push(offset);
    return number;
  }
}

/** Offsets are below 2^36 in practice; where they are not, two registers count as one. */
function keyOf(region: number, offset: number): number {
  return region * OFFSET_RANGE + (offset % OFFSET_RANGE);
}
