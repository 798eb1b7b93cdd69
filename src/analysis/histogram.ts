/** Counts by interval. Without an end, intervals become twice as long whenever they do not suffice. */
const MAX_BUCKETS = 2048;
const FIRST_WIDTH_NS = 1000;
const SPAN_BUCKETS = 1024;

export class Histogram {
  readonly fromNs: number;
  widthNs: number;
  /** Buckets in use. */
  length = 0;
  readonly reads = new Uint32Array(MAX_BUCKETS);
  readonly writes = new Uint32Array(MAX_BUCKETS);
  readonly interrupts = new Uint32Array(MAX_BUCKETS);

  constructor(fromNs: number, toNs: number) {
    this.fromNs = Number.isFinite(fromNs) ? fromNs : 0;
    const span = toNs - this.fromNs;
    this.widthNs = Number.isFinite(span)
      ? Math.max(1, Math.ceil(span / SPAN_BUCKETS))
      : FIRST_WIDTH_NS;
  }

  /** Where a time is counted. What lies before the beginning is counted there. */
  bucketOf(timeNs: number): number {
    let bucket = Math.max(0, Math.floor((timeNs - this.fromNs) / this.widthNs));
    while (bucket >= MAX_BUCKETS) {
      this.#widen();
      bucket = Math.floor((timeNs - this.fromNs) / this.widthNs);
    }
    if (bucket >= this.length) this.length = bucket + 1;
    return bucket;
  }

  #widen(): void {
    for (const counts of [this.reads, this.writes, this.interrupts]) {
      for (let at = 0; at < MAX_BUCKETS / 2; at++) {
        counts[at] = counts[2 * at]! + counts[2 * at + 1]!;
      }
      counts.fill(0, MAX_BUCKETS / 2);
    }
    this.widthNs *= 2;
    this.length = Math.ceil(this.length / 2);
  }
}
