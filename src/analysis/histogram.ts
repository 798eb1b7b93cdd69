import { Op, type AccessBatch } from '../model/access-batch.ts';
import type { RecordingEvent } from '../model/events.ts';
import type { Analysis } from './analysis.ts';
import type { Span } from './span.ts';

const MAX_BUCKETS = 2048;
const FIRST_WIDTH_NS = 1000;
const SPAN_BUCKETS = 1024;

/** Counts by interval: how many of the buckets are in use, and what is in them. */
export interface HistogramResult {
  readonly fromNs: number;
  readonly widthNs: number;
  readonly reads: Uint32Array;
  readonly writes: Uint32Array;
  readonly interrupts: Uint32Array;
}

/** Without an end of the span, intervals become twice as long whenever they do not suffice. */
export class Histogram implements Analysis<HistogramResult> {
  readonly #fromNs: number;
  #widthNs: number;
  /** Buckets in use. */
  #length = 0;
  readonly #reads = new Uint32Array(MAX_BUCKETS);
  readonly #writes = new Uint32Array(MAX_BUCKETS);
  readonly #interrupts = new Uint32Array(MAX_BUCKETS);

  constructor({ fromNs, toNs }: Span) {
    this.#fromNs = Number.isFinite(fromNs) ? fromNs : 0;
    const span = toNs - this.#fromNs;
    this.#widthNs = Number.isFinite(span)
      ? Math.max(1, Math.ceil(span / SPAN_BUCKETS))
      : FIRST_WIDTH_NS;
  }

  batch({ length, timeNs, op }: AccessBatch): void {
    for (let row = 0; row < length; row++) {
      const counts = op[row] === Op.write ? this.#writes : this.#reads;
      counts[this.#bucketOf(timeNs[row]!)]!++;
    }
  }

  event(event: RecordingEvent): void {
    if (event.kind === 'interrupt') this.interrupt(event.timeNs);
  }

  interrupt(timeNs: number): void {
    this.#interrupts[this.#bucketOf(timeNs)]!++;
  }

  result(): HistogramResult {
    return {
      fromNs: this.#fromNs,
      widthNs: this.#widthNs,
      reads: this.#reads.slice(0, this.#length),
      writes: this.#writes.slice(0, this.#length),
      interrupts: this.#interrupts.slice(0, this.#length),
    };
  }

  /** Where a time is counted. What lies before the beginning is counted there. */
  #bucketOf(timeNs: number): number {
    let bucket = Math.max(0, Math.floor((timeNs - this.#fromNs) / this.#widthNs));
    while (bucket >= MAX_BUCKETS) {
      this.#widen();
      bucket = Math.floor((timeNs - this.#fromNs) / this.#widthNs);
    }
    if (bucket >= this.#length) this.#length = bucket + 1;
    return bucket;
  }

  #widen(): void {
    for (const counts of [this.#reads, this.#writes, this.#interrupts]) {
      for (let at = 0; at < MAX_BUCKETS / 2; at++) {
        counts[at] = counts[2 * at]! + counts[2 * at + 1]!;
      }
      counts.fill(0, MAX_BUCKETS / 2);
    }
    this.#widthNs *= 2;
    this.#length = Math.ceil(this.#length / 2);
  }
}
