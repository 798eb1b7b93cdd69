import type { AccessBatch } from '../model/access-batch.ts';

const OFFSET_RANGE = 2 ** 36;

/** Numbers the registers (region and offset) of a recording in order of their first access. */
export class RegisterTable {
  readonly region: number[] = [];
  readonly offset: number[] = [];
  readonly #numbers = new Map<number, number>();
  #column = new Uint32Array(1024);
  #lastKey = -1;
  #lastNumber = 0;

  get length(): number {
    return this.region.length;
  }

  /** The register's number, or -1 where it was never accessed. */
  find(region: number, offset: number): number {
    return this.#numbers.get(keyOf(region, offset)) ?? -1;
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
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.region.length;
      this.#numbers.set(key, number);
      this.region.push(region);
      this.offset.push(offset);
    }
    return number;
  }
}

/** Offsets are below 2^36 in practice; where they are not, two registers count as one. */
function keyOf(region: number, offset: number): number {
  return region * OFFSET_RANGE + (offset % OFFSET_RANGE);
}
