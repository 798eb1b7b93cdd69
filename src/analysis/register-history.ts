import { Op, type AccessBatch } from '../model/access-batch.ts';
import type { Analysis } from './analysis.ts';
import type { ReadsAndWrites } from './region-counts.ts';

/** More are dropped from the beginning, and counted. */
const MAX_ENTRIES = 2000;

/** One access to a register, or reads of one value and width, one after the other, by one vCPU. */
export interface HistoryEntry {
  readonly write: boolean;
  readonly firstNs: number;
  readonly lastNs: number;
  readonly count: number;
  /** Low and high 32 bits. */
  readonly value: readonly [number, number];
  readonly cpu: number;
  readonly pc: readonly [number, number];
  readonly width: number;
  /** Number of the first access among all of the recording. */
  readonly rowNumber: number;
}

export interface History extends ReadsAndWrites {
  readonly entries: readonly HistoryEntry[];
  /** So many came before. */
  readonly leftOut: number;
}

type Growing = { -readonly [Name in keyof HistoryEntry]: HistoryEntry[Name] };

/** All that happened to one register. */
export class RegisterHistory implements Analysis<History> {
  readonly #region: number;
  readonly #offset: number;
  readonly #entries: Growing[] = [];
  #leftOut = 0;
  #reads = 0;
  #writes = 0;
  /** Number of the next row. */
  #next = 0;

  constructor(region: number, offset: number) {
    this.#region = region;
    this.#offset = offset;
  }

  batch(batch: AccessBatch): void {
    const first = this.#next;
    this.add(batch, (row) => first + row);
    this.#next += batch.length;
  }

  /** @param rowNumberOf the number, among all of the recording, of a row of the batch */
  add(batch: AccessBatch, rowNumberOf: (row: number) => number): void {
    const { length, region, offset } = batch;
    for (let row = 0; row < length; row++) {
      if (region[row] === this.#region && offset[row] === this.#offset) {
        this.#addRow(batch, row, rowNumberOf);
      }
    }
    // Twice as many are let come together, so that it is not done for each.
    if (this.#entries.length > 2 * MAX_ENTRIES) this.#drop();
  }

  event(): void {}

  result(): History {
    this.#drop();
    return {
      entries: this.#entries,
      leftOut: this.#leftOut,
      reads: this.#reads,
      writes: this.#writes,
    };
  }

  #addRow(batch: AccessBatch, row: number, rowNumberOf: (row: number) => number): void {
    const write = batch.op[row] === Op.write;
    if (write) this.#writes++;
    else this.#reads++;
    const timeNs = batch.timeNs[row]!;
    const lo = batch.valueLo[row]!;
    const hi = batch.valueHi[row]!;
    const cpu = batch.cpu[row]!;
    const width = batch.width[row]!;
    const last = this.#entries.at(-1);
    if (
      !write &&
      last?.write === false &&
      last.value[0] === lo &&
      last.value[1] === hi &&
      last.width === width &&
      last.cpu === cpu
    ) {
      last.count++;
      last.lastNs = timeNs;
      return;
    }
    this.#entries.push({
      write,
      firstNs: timeNs,
      lastNs: timeNs,
      count: 1,
      value: [lo, hi],
      cpu,
      pc: [batch.pcLo[row]!, batch.pcHi[row]!],
      width,
      rowNumber: rowNumberOf(row),
    });
  }

  #drop(): void {
    const more = this.#entries.length - MAX_ENTRIES;
    if (more <= 0) return;
    this.#entries.splice(0, more);
    this.#leftOut += more;
  }
}
