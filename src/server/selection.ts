/**
 * The accesses that pass a filter within a span: counted by block, by interval and by register.
 * Catches up with what is recorded by reading the file, and from then on is fed as it grows.
 */
import type { AccessBatch } from '../model/access-batch.ts';
import { Op } from '../model/access-batch.ts';
import type { CaptureIndex } from './capture-index.ts';
import { compileFilter, type Predicate } from '../analysis/filter/compile.ts';
import { parseFilter } from '../analysis/filter/parse.ts';
import { Histogram } from '../analysis/histogram.ts';

export interface SelectionKey {
  readonly filter: string;
  /** -Infinity and Infinity: without a beginning or an end. */
  readonly fromNs: number;
  /** Exclusive. */
  readonly toNs: number;
}

export class Selection {
  readonly key: SelectionKey;
  readonly histogram: Histogram;
  rows = 0;
  reads = 0;
  writes = 0;
  /** How many accesses of the recording were looked at. */
  seen = 0;
  /** Grows with every change. */
  version = 0;
  caughtUp = false;
  /** By block: how many accesses of it are in the selection. */
  readonly inBlock: number[] = [];
  /** By register number. */
  readonly registerReads: number[] = [];
  readonly registerWrites: number[] = [];
  readonly valueLo: number[] = [];
  readonly valueHi: number[] = [];
  readonly width: number[] = [];

  readonly #index: CaptureIndex;
  readonly #passes: Predicate;
  readonly #everything: boolean;
  #interrupts = 0;
  #closed = false;
  readonly #feed = (batch: AccessBatch, registers: Uint32Array, block: number): void => {
    if (this.caughtUp) this.#add(batch, registers, block, 0);
  };

  /** Throws FilterError. */
  constructor(index: CaptureIndex, key: SelectionKey) {
    this.#index = index;
    this.key = key;
    const filter = parseFilter(key.filter);
    this.#passes = compileFilter(filter, index.tables);
    this.#everything = filter.kind === 'all' && key.fromNs === -Infinity && key.toNs === Infinity;
    this.histogram = new Histogram(key.fromNs, key.toNs);
    index.listeners.add(this.#feed);
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
      this.version++;
    }
    this.caughtUp = true;
  }

  close(): void {
    this.#closed = true;
    this.#index.listeners.delete(this.#feed);
  }

  /** Whether row `row` of a batch belongs to it. */
  has(batch: AccessBatch, row: number): boolean {
    if (this.#everything) return true;
    const time = batch.timeNs[row]!;
    return time >= this.key.fromNs && time < this.key.toNs && this.#passes(batch, row);
  }

  /** Counts the interrupts that came since it was last asked to. */
  countInterrupts(): void {
    const { interruptNs } = this.#index;
    const { fromNs, toNs } = this.key;
    for (; this.#interrupts < interruptNs.length; this.#interrupts++) {
      const time = interruptNs[this.#interrupts]!;
      if (time < fromNs || time >= toNs) continue;
      this.histogram.interrupts[this.histogram.bucketOf(time)]!++;
    }
  }

  #add(batch: AccessBatch, registers: Uint32Array, block: number, from: number): void {
    const { histogram } = this;
    let rows = 0;
    let writes = 0;
    for (let row = from; row < batch.length; row++) {
      if (!this.has(batch, row)) continue;
      rows++;
      const bucket = histogram.bucketOf(batch.timeNs[row]!);
      const register = registers[row]!;
      if (this.registerReads[register] === undefined) this.#meet(register);
      if (batch.op[row] === Op.write) {
        writes++;
        histogram.writes[bucket]!++;
        this.registerWrites[register]!++;
      } else {
        histogram.reads[bucket]!++;
        this.registerReads[register]!++;
      }
      this.valueLo[register] = batch.valueLo[row]!;
      this.valueHi[register] = batch.valueHi[row]!;
      this.width[register] = batch.width[row]!;
    }
    this.seen += batch.length - from;
    this.rows += rows;
    this.writes += writes;
    this.reads += rows - writes;
    this.inBlock[block] = (this.inBlock[block] ?? 0) + rows;
    this.version++;
  }

  /** Arrays without holes, so that they stay fast. */
  #meet(register: number): void {
    for (let next = this.registerReads.length; next <= register; next++) {
      this.registerReads.push(0);
      this.registerWrites.push(0);
      this.valueLo.push(0);
      this.valueHi.push(0);
      this.width.push(0);
    }
  }
}
