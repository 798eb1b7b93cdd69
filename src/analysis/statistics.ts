import { Op } from '../model/access-batch.ts';
import { isBatch, type StreamItem } from '../model/stream.ts';
import { Tables, type TablesSnapshot } from '../model/tables.ts';

export interface RegisterCount {
  readonly region: number;
  readonly offset: number;
  readonly reads: number;
  readonly writes: number;
}

/** More distinct registers than a device has; what comes after them is counted by region only. */
const MAX_REGISTERS = 65_536;
const OFFSET_RANGE = 2 ** 36;

/** Counts a stream as it goes by: by region, and by register for the busiest ones. */
export class Statistics {
  readonly tables: Tables;
  marks = 0;
  interrupts = 0;
  resets = 0;
  /** By `Region.id`. */
  readonly regionReads: number[];
  readonly regionWrites: number[];

  readonly #index = new Map<number, number>();
  readonly #keys: number[] = [];
  readonly #reads: number[] = [];
  readonly #writes: number[] = [];
  #lastKey = -1;
  #lastIndex = -1;

  /** @param from counts by region to go on from; those by register begin anew */
  constructor(from?: {
    readonly tables: TablesSnapshot;
    readonly regionReads: readonly number[];
    readonly regionWrites: readonly number[];
  }) {
    this.tables = new Tables(from?.tables);
    this.regionReads = [...(from?.regionReads ?? [])];
    this.regionWrites = [...(from?.regionWrites ?? [])];
  }

  write(item: StreamItem): void {
    if (!isBatch(item)) {
      this.tables.apply(item);
      if (item.kind === 'mark') this.marks++;
      else if (item.kind === 'interrupt') this.interrupts++;
      else if (item.kind === 'reset') this.resets++;
      return;
    }
    for (let row = 0; row < item.length; row++) {
      const region = item.region[row]!;
      const key = region * OFFSET_RANGE + (item.offset[row]! % OFFSET_RANGE);
      // PERF: poll loops read one register thousands of times.
      const index = key === this.#lastKey ? this.#lastIndex : this.#find(key);
      if (item.op[row] === Op.write) {
        this.regionWrites[region] = (this.regionWrites[region] ?? 0) + 1;
        if (index >= 0) this.#writes[index]!++;
      } else {
        this.regionReads[region] = (this.regionReads[region] ?? 0) + 1;
        if (index >= 0) this.#reads[index]!++;
      }
    }
  }

  #find(key: number): number {
    let index = this.#index.get(key);
    if (index === undefined) {
      index = this.#keys.length < MAX_REGISTERS ? this.#keys.length : -1;
      if (index >= 0) {
        this.#index.set(key, index);
        this.#keys.push(key);
        this.#reads.push(0);
        this.#writes.push(0);
      }
    }
    this.#lastKey = key;
    this.#lastIndex = index;
    return index;
  }

  /** The registers with the most accesses, busiest first. */
  busiest(count: number): RegisterCount[] {
    return this.#keys
      .map((key, index) => ({
        region: Math.floor(key / OFFSET_RANGE),
        offset: key % OFFSET_RANGE,
        reads: this.#reads[index] ?? 0,
        writes: this.#writes[index] ?? 0,
      }))
      .toSorted((a, b) => b.reads + b.writes - (a.reads + a.writes))
      .slice(0, count);
  }

  get registerCount(): number {
    return this.#keys.length;
  }
}
