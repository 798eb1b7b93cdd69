/** Accesses of one vCPU as KVM saw them, that QEMU's log has not yet told of. */

/** More than these are never kept: the oldest go. */
export const MAX_QUEUED = 16_384;

const SIZE = MAX_QUEUED;
const MASK = SIZE - 1;

export class VcpuQueue {
  /** Rows [first, end) are there; row `i` lies at `i & MASK`. */
  first = 0;
  end = 0;
  readonly timeNs = new Float64Array(SIZE);
  readonly address = new Float64Array(SIZE);
  readonly width = new Uint8Array(SIZE);
  /** 1 for a write. */
  readonly op = new Uint8Array(SIZE);
  readonly lo = new Uint32Array(SIZE);
  readonly hi = new Uint32Array(SIZE);
  readonly pcLo = new Uint32Array(SIZE);
  readonly pcHi = new Uint32Array(SIZE);
  /** Bytes of the first row that the log has told of already. */
  told = 0;
  /** The first row is the access of the log's next line, or one of which it has none. */
  aligned: boolean;
  /** Where the vCPU is: of the instruction that KVM emulates. */
  nowLo = 0;
  nowHi = 0;
  /** KVM is done with the newest row. */
  isDone = true;

  constructor(aligned: boolean) {
    this.aligned = aligned;
  }

  get length(): number {
    return this.end - this.first;
  }

  /** False where the oldest had to go for it. */
  push(
    timeNs: number,
    write: boolean,
    width: number,
    address: number,
    lo: number,
    hi: number,
  ): boolean {
    const full = this.length === SIZE;
    if (full) this.dropFirst(this.first + 1);
    const at = this.end++ & MASK;
    this.timeNs[at] = timeNs;
    this.op[at] = write ? 1 : 0;
    this.width[at] = width;
    this.address[at] = address;
    this.lo[at] = lo;
    this.hi[at] = hi;
    this.pcLo[at] = this.nowLo;
    this.pcHi[at] = this.nowHi;
    this.isDone = false;
    return !full;
  }

  dropFirst(until: number): void {
    if (until > this.first) this.told = 0;
    this.first = until;
  }

  timeOf(row: number): number {
    return this.timeNs[row & MASK]!;
  }

  addressOf(row: number): number {
    return this.address[row & MASK]!;
  }

  /** Whether a line of the log can be (the next part of) this access. */
  fits(row: number, write: boolean, width: number, address: number, lo: number, hi: number) {
    const at = row & MASK;
    const told = row === this.first ? this.told : 0;
    if (this.op[at] !== (write ? 1 : 0)) return false;
    if (address !== this.address[at]! + told || told + width > this.width[at]!) return false;
    // The kernel tells the first eight bytes of a value, and of a read none before QEMU has logged it.
    if (!write || told + width > 8) return true;
    const low = this.lo[at]!;
    const high = this.hi[at]!;
    if (width === 8) return low === lo && high === hi;
    const shift = 8 * (told & 3);
    let part = (told < 4 ? low : high) >>> shift;
    if (told < 4 && shift > 0) part |= high << (32 - shift);
    return ((part ^ lo) & (width === 4 ? -1 : 2 ** (8 * width) - 1)) === 0;
  }

  /** The log has told of so many bytes of this row; the rows before it are done with. */
  tell(row: number, width: number): void {
    this.dropFirst(row);
    this.told += width;
    if (this.told >= this.width[row & MASK]!) this.dropFirst(row + 1);
  }

  pcLoOf(row: number): number {
    return this.pcLo[row & MASK]!;
  }

  pcHiOf(row: number): number {
    return this.pcHi[row & MASK]!;
  }
}
