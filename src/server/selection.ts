/**
 * The accesses that pass a filter within a span: counted by block, by interval and by register.
 * Catches up with what is recorded by reading the file, and from then on is fed as it grows.
 */
import type { AccessBatch } from '../model/access-batch.ts';
import { unknownNames } from '../analysis/filter/names.ts';
import { parseFilter, type Filter } from '../analysis/filter/parse.ts';
import { Histogram, type HistogramResult } from '../analysis/histogram.ts';
import { RegionCounts, type RegionTraffic } from '../analysis/region-counts.ts';
import { RegisterCounts, type RegisterTraffic } from '../analysis/register-counts.ts';
import { RowSelector } from '../analysis/row-selector.ts';
import { spanHas, type Span } from '../analysis/span.ts';
import { TotalsAnalysis, type Totals } from '../analysis/totals.ts';
import type { CaptureIndex } from './capture-index.ts';

export interface SelectionKey extends Span {
  readonly filter: string;
}

export interface SelectionResult {
  readonly totals: Totals;
  readonly histogram: HistogramResult;
  readonly registers: RegisterTraffic;
  readonly regions: RegionTraffic;
  /** What the filter names and the recording does not have, for people. */
  readonly unknownNames: readonly string[];
}

export class Selection {
  readonly key: SelectionKey;
  /** How many accesses of the recording were looked at. */
  seen = 0;
  caughtUp = false;
  /** By block: how many accesses of it are in the selection. */
  readonly inBlock: number[] = [];

  readonly #index: CaptureIndex;
  readonly #filter: Filter;
  readonly #rows: RowSelector;
  readonly #totals = new TotalsAnalysis();
  readonly #histogram: Histogram;
  readonly #registers: RegisterCounts;
  readonly #regions = new RegionCounts();
  #registerColumn = new Uint32Array(1024);
  #interrupts = 0;
  #version = 0;
  #closed = false;
  readonly #feed = (batch: AccessBatch, registers: Uint32Array, block: number): void => {
    if (this.caughtUp) this.#add(batch, registers, block, 0);
  };

  /** Throws FilterError. */
  constructor(index: CaptureIndex, key: SelectionKey) {
    this.#index = index;
    this.key = key;
    this.#filter = parseFilter(key.filter);
    this.#rows = new RowSelector({ filter: this.#filter, span: key }, index.tables);
    this.#histogram = new Histogram(key);
    this.#registers = new RegisterCounts(index.registers);
    index.listeners.add(this.#feed);
  }

  /** Grows with every change. */
  get version(): number {
    const { interruptNs, tables } = this.#index;
    const known = tables.devices.length + tables.regions.length;
    return this.#version + interruptNs.length + known + (this.caughtUp ? 1 : 0);
  }

  /** Looks at what was recorded before; what comes later is fed. Throws MmioError. */
  async catchUp(): Promise<void> {
    const { blocks, registers } = this.#index;
    for (let number = 0; number < blocks.length && !this.#closed;) {
      const block = blocks[number]!;
      const { rows } = block;
      if (block.maxNs >= this.key.fromNs && block.minNs < this.key.toNs) {
        let row = block.firstRow;
        for await (const batch of this.#index.batches(block)) {
          // Of a block that has grown since it was last read, the beginning is known.
          const from = this.seen - row;
          row += batch.length;
          if (from < batch.length)
            this.#add(batch, registers.column(batch), number, Math.max(0, from));
        }
      }
      // What came while the file was read is not in it.
      this.seen = block.firstRow + rows;
      if (block.rows === rows) number++;
      this.#version++;
    }
    this.caughtUp = true;
  }

  close(): void {
    this.#closed = true;
    this.#index.listeners.delete(this.#feed);
  }

  /** Whether row `row` of a batch belongs to it. */
  has(batch: AccessBatch, row: number): boolean {
    return this.#rows.has(batch, row);
  }

  result(): SelectionResult {
    this.#countInterrupts();
    return {
      totals: this.#totals.result(),
      histogram: this.#histogram.result(),
      registers: this.#registers.result(),
      regions: this.#regions.result(),
      unknownNames: unknownNames(this.#filter, this.#index.tables),
    };
  }

  /** Those that came since it was last asked. */
  #countInterrupts(): void {
    const { interruptNs } = this.#index;
    for (; this.#interrupts < interruptNs.length; this.#interrupts++) {
      const timeNs = interruptNs[this.#interrupts]!;
      if (spanHas(this.key, timeNs)) this.#histogram.interrupt(timeNs);
    }
  }

  #add(batch: AccessBatch, registers: Uint32Array, block: number, from: number): void {
    this.seen += batch.length - from;
    this.#version++;
    const rows = this.#rows.select(batch, from);
    if (rows === undefined) return;
    this.#totals.batch(rows);
    this.#histogram.batch(rows);
    this.#regions.batch(rows);
    this.#registers.add(rows, rows === batch ? registers : this.#pick(registers, rows.length));
    this.inBlock[block] = (this.inBlock[block] ?? 0) + rows.length;
  }

  /** PERF: looking each register up again would cost more. */
  #pick(registers: Uint32Array, length: number): Uint32Array {
    if (this.#registerColumn.length < length) this.#registerColumn = new Uint32Array(2 * length);
    const { picked } = this.#rows;
    for (let row = 0; row < length; row++) {
      this.#registerColumn[row] = registers[picked[row]!]!;
    }
    return this.#registerColumn;
  }
}
