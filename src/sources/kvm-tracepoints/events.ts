/** What a record of the ring buffer is. */
export const Kind = {
  /** An instruction that KVM is about to emulate: its linear address is the value. */
  instruction: 0,
  /** A read that KVM cannot answer by itself: no value yet. */
  readAsked: 1,
  /** The answer. */
  read: 2,
  write: 3,
  portRead: 4,
  portWrite: 5,
  /** An IN or OUT: the instruction's address is the value; port and width. */
  portInstruction: 6,
  /** As many records as the value says, -1 for unknown, are missing on one CPU before this one. */
  lost: 7,
} as const;

/** One record as plain numbers: time, thread, kind, width, count, address, value. */
export type KvmRow = readonly [number, number, number, number, number, number, number, number];

/** Records as columns; row `i` is one. Grows. */
export class KvmEvents {
  length = 0;
  /** CLOCK_MONOTONIC, less the base. */
  timeNs = new Float64Array(1024);
  thread = new Int32Array(1024);
  /** `Kind` */
  kind = new Uint8Array(1024);
  /** Bytes of the access; of string instructions at a port, of one element. */
  width = new Uint8Array(1024);
  /** How many elements a string instruction moves. */
  count = new Uint32Array(1024);
  /** Guest-physical address or port. */
  address = new Float64Array(1024);
  lo = new Uint32Array(1024);
  hi = new Uint32Array(1024);

  /** Index of a new row, to be filled in. */
  add(): number {
    if (this.length === this.timeNs.length) this.#grow();
    return this.length++;
  }

  #grow(): void {
    const size = this.length * 2;
    const wider = <T extends Float64Array | Int32Array | Uint32Array | Uint8Array>(
      to: T,
      from: T,
    ): T => {
      to.set(from);
      return to;
    };
    this.timeNs = wider(new Float64Array(size), this.timeNs);
    this.thread = wider(new Int32Array(size), this.thread);
    this.kind = wider(new Uint8Array(size), this.kind);
    this.width = wider(new Uint8Array(size), this.width);
    this.count = wider(new Uint32Array(size), this.count);
    this.address = wider(new Float64Array(size), this.address);
    this.lo = wider(new Uint32Array(size), this.lo);
    this.hi = wider(new Uint32Array(size), this.hi);
  }

  /** Appends row `row` of another. */
  copy(from: KvmEvents, row: number): void {
    const at = this.add();
    this.timeNs[at] = from.timeNs[row]!;
    this.thread[at] = from.thread[row]!;
    this.kind[at] = from.kind[row]!;
    this.width[at] = from.width[row]!;
    this.count[at] = from.count[row]!;
    this.address[at] = from.address[row]!;
    this.lo[at] = from.lo[row]!;
    this.hi[at] = from.hi[row]!;
  }

  row(at: number): KvmRow {
    return [
      this.timeNs[at]!,
      this.thread[at]!,
      this.kind[at]!,
      this.width[at]!,
      this.count[at]!,
      this.address[at]!,
      this.lo[at]!,
      this.hi[at]!,
    ];
  }

  put([timeNs, thread, kind, width, count, address, lo, hi]: KvmRow): void {
    const at = this.add();
    this.timeNs[at] = timeNs;
    this.thread[at] = thread;
    this.kind[at] = kind;
    this.width[at] = width;
    this.count[at] = count;
    this.address[at] = address;
    this.lo[at] = lo;
    this.hi[at] = hi;
  }

  /** Takes the rows before `row` out. */
  dropBefore(row: number): void {
    const columns = [
      this.timeNs,
      this.thread,
      this.kind,
      this.width,
      this.count,
      this.address,
      this.lo,
      this.hi,
    ];
    for (const column of columns) column.copyWithin(0, row, this.length);
    this.length -= row;
  }
}
