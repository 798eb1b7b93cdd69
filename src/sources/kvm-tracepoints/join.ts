/**
 * Gives the accesses of QEMU's log the guest's instruction pointer, which KVM's tracepoints know.
 *
 * Both tell the same story. A vCPU does one access after the other: KVM records it, then QEMU
 * performs and logs it, then the vCPU goes on. So what KVM has recorded of a line is always there
 * before the line, and the accesses of one vCPU come in the same order on both sides; KVM's has
 * more, since the log leaves some regions out. As long as nothing is missing, the partner of a line
 * is the first of the vCPU's accesses that it can be, by address, width and, of a write, value.
 *
 * Where something is missing (records lost, or a beginning in the middle), order proves nothing.
 * Then the clock does: a line was written between its access and the vCPU's next. Where more than
 * one access could be it, the line gets no PC.
 */
import { NO_CPU } from '../../model/access-batch.ts';
import { Kind, type KvmEvents } from './events.ts';
import { VcpuQueue } from './vcpu-queue.ts';

/** QEMU's stamps are cut off to microseconds. */
const STAMP_NS = 1000;
/** How far the two clocks may be apart: how exactly one can be read against the other. */
const SKEW_NS = 2000;
/** What was lost may be going on for so long. */
const LONGEST_ACCESS_NS = 1e9;
/** A line with no partner among so many is not looked for by order again. */
const MAX_SKIPPED = 4096;

export interface JoinCounts {
  /** Accesses that got their PC, and those that did not. */
  readonly joined: number;
  readonly alone: number;
  /** Accesses to the recorded BARs that KVM saw, and of which the log has no line. */
  readonly unlogged: number;
  /** How often records were lost. */
  readonly losses: number;
}

/** One line of the log, as it is asked for. */
export interface LoggedAccess {
  /** NaN where the log has no stamps. */
  readonly timeNs: number;
  /** vCPU, or NO_CPU where the log does not say. */
  readonly cpu: number;
  readonly write: boolean;
  readonly width: number;
  /** Guest-physical address or port. */
  readonly address: number;
  readonly lo: number;
  readonly hi: number;
}

export class PcJoin {
  /** vCPU of each thread. */
  vcpuOfThread: ReadonlyMap<number, number>;
  /** Added to KVM's times to make them the log's. */
  clockOffsetNs = 0;
  /** What `join` has found. */
  pcLo = 0;
  pcHi = 0;
  cpu = NO_CPU;

  readonly #queues = new Map<number, VcpuQueue>();
  readonly #more: () => boolean;
  readonly #isRecorded: (address: number) => boolean;
  readonly #aligned: boolean;
  /** Every access since has been handed over, */
  #sinceNs: number;
  /** and until then. */
  #knownUntilNs = -Infinity;
  #counts = { joined: 0, alone: 0, unlogged: 0, losses: 0 };

  /** @param options.more hands over the next records by `take`; false where there are none yet */
  constructor(options: {
    readonly vcpuOfThread: ReadonlyMap<number, number>;
    /** Both sides begin at the same access: the guest had not run before. */
    readonly aligned: boolean;
    readonly more: () => boolean;
    /** Whether an address is of a BAR that is recorded. */
    readonly isRecorded: (address: number) => boolean;
  }) {
    this.vcpuOfThread = options.vcpuOfThread;
    this.#aligned = options.aligned;
    this.#sinceNs = options.aligned ? -Infinity : NaN;
    this.#more = options.more;
    this.#isRecorded = options.isRecorded;
  }

  get counts(): JoinCounts {
    return this.#counts;
  }

  #queue(cpu: number): VcpuQueue {
    let queue = this.#queues.get(cpu);
    if (queue === undefined) {
      // A vCPU of which nothing was seen until records were lost may have lost its first.
      const aligned = this.#aligned && this.#counts.losses === 0;
      this.#queues.set(cpu, (queue = new VcpuQueue(aligned)));
    }
    return queue;
  }

  /** Takes over one round of records, in order; all before `untilNs` have come by now. */
  take(events: KvmEvents, untilNs: number): void {
    const lostUntilNs = this.#afterLoss(events);
    if (Number.isNaN(this.#sinceNs)) {
      this.#sinceNs = events.length === 0 ? untilNs : events.timeNs[0]!;
    }
    let thread = 0;
    let queue: VcpuQueue | undefined;
    for (let row = 0; row < events.length; row++) {
      if (events.timeNs[row]! <= lostUntilNs) continue;
      const of = events.thread[row]!;
      if (of !== thread) {
        thread = of;
        const cpu = this.vcpuOfThread.get(of);
        queue = cpu === undefined ? undefined : this.#queue(cpu);
      }
      if (queue === undefined) continue;
      const kind = events.kind[row]!;
      if (kind === Kind.readAsked || kind === Kind.write || kind === Kind.portWrite) {
        this.#push(queue, events, row, kind !== Kind.readAsked);
      } else {
        queue.isDone = true;
        if (kind === Kind.instruction || kind === Kind.portInstruction) {
          queue.nowLo = events.lo[row]!;
          queue.nowHi = events.hi[row]!;
          // Of a read at a port the kernel tells only when QEMU has answered.
          if (kind === Kind.portInstruction && events.count[row] === 1) {
            this.#push(queue, events, row, false);
          }
        }
      }
    }
    this.#knownUntilNs = untilNs;
  }

  #push(queue: VcpuQueue, events: KvmEvents, row: number, write: boolean): void {
    const timeNs = events.timeNs[row]!;
    const address = events.address[row]!;
    const first = queue.addressOf(queue.first);
    const width = events.width[row]!;
    if (queue.push(timeNs, write, width, address, events.lo[row]!, events.hi[row]!)) return;
    if (!this.#isRecorded(first)) return;
    queue.aligned = false;
    this.#sinceNs = timeNs;
  }

  /**
   * Where one CPU has lost records, nobody knows whose: all before the last of these places is void.
   * What was lost came after the round before, which had all that happened until it began.
   */
  #afterLoss(events: KvmEvents): number {
    let untilNs = -Infinity;
    for (let row = 0; row < events.length; row++) {
      if (events.kind[row] === Kind.lost) untilNs = events.timeNs[row]!;
    }
    if (untilNs === -Infinity) return untilNs;
    this.#counts.losses++;
    this.#sinceNs = untilNs;
    for (const queue of this.#queues.values()) {
      queue.aligned = false;
      queue.dropFirst(queue.end);
      queue.nowLo = queue.nowHi = 0;
      queue.isDone = false;
    }
    return untilNs;
  }

  /** Looks for a line's partner; its PC and vCPU are then in `pcLo`, `pcHi` and `cpu`. */
  join(line: LoggedAccess): boolean {
    this.cpu = line.cpu;
    // Of a VM with one vCPU the log need not say which.
    if (line.cpu === NO_CPU && this.vcpuOfThread.size === 1)
      [this.cpu = 0] = this.vcpuOfThread.values();
    const found =
      this.cpu === NO_CPU ? this.#joinAny(line) : this.#joinOne(this.#queue(this.cpu), line);
    if (found) {
      this.#counts.joined++;
      return true;
    }
    this.pcLo = this.pcHi = 0;
    this.#counts.alone++;
    return false;
  }

  /** A line that comes from no vCPU, or to no known address. */
  pass(): void {
    this.#counts.alone++;
  }

  #joinOne(queue: VcpuQueue, line: LoggedAccess): boolean {
    const row = queue.aligned ? this.#byOrder(queue, line) : this.#byTime(queue, line);
    return row >= 0 && this.#found(queue, row, line.width);
  }

  /** The line's thread is not known: its partner is of the one vCPU that it can be of. */
  #joinAny(line: LoggedAccess): boolean {
    while (this.#lacks(line.timeNs) && this.#more());
    let found: VcpuQueue | undefined;
    let foundRow = NONE;
    let fitting = 0;
    const sinceLossNs = line.timeNs - this.clockOffsetNs - this.#sinceNs;
    for (const cpu of this.vcpuOfThread.values()) {
      const queue = this.#queue(cpu);
      const row = queue.aligned ? this.#headUntil(queue, line) : this.#byTime(queue, line);
      // No access of a vCPU that has not been seen since takes that long.
      if (row === NONE || (row === UNKNOWN && sinceLossNs > LONGEST_ACCESS_NS)) continue;
      fitting += row >= 0 ? 1 : 2;
      // One of two has been told of, and nobody knows which.
      if (found !== undefined) found.aligned = queue.aligned = false;
      found = queue;
      foundRow = row;
      this.cpu = cpu;
    }
    if (fitting === 1 && found !== undefined) return this.#found(found, foundRow, line.width);
    this.cpu = NO_CPU;
    return false;
  }

  /** The first that fits, of those that had begun when the line was written. */
  #headUntil(queue: VcpuQueue, line: LoggedAccess): number {
    const { timeNs, write, width, address, lo, hi } = line;
    const toNs = timeNs - this.clockOffsetNs + STAMP_NS + SKEW_NS;
    for (let row = queue.first; row < queue.end; row++) {
      if (queue.timeOf(row) > toNs) return NONE;
      if (queue.fits(row, write, width, address, lo, hi)) return row;
    }
    return NONE;
  }

  #found(queue: VcpuQueue, row: number, width: number): boolean {
    for (let i = queue.first; i < row; i++) {
      if (queue.aligned && this.#isRecorded(queue.addressOf(i))) this.#counts.unlogged++;
    }
    this.pcLo = queue.pcLoOf(row);
    this.pcHi = queue.pcHiOf(row);
    queue.tell(row, width);
    queue.aligned = true;
    return this.pcLo !== 0 || this.pcHi !== 0;
  }

  #byOrder(queue: VcpuQueue, line: LoggedAccess): number {
    const { write, width, address, lo, hi } = line;
    for (let row = queue.first; row - queue.first < MAX_SKIPPED; row++) {
      while (row === queue.end) {
        if (!this.#more()) return NONE;
        // Lost meanwhile, or evicted: order is no proof any more.
        if (!queue.aligned) return this.#byTime(queue, line);
        if (row < queue.first) row = queue.first;
      }
      if (queue.fits(row, write, width, address, lo, hi)) return row;
      // What is left of an access that the log told of in part.
      if (row === queue.first && queue.told > 0) {
        queue.dropFirst(row + 1);
      }
    }
    queue.aligned = false;
    return this.#byTime(queue, line);
  }

  /** The one access during which the line was written, by the clock. */
  #byTime(queue: VcpuQueue, line: LoggedAccess): number {
    const { timeNs, write, width, address, lo, hi } = line;
    while (this.#lacks(timeNs) && this.#more());
    if (this.#lacks(timeNs)) return NONE;
    const fromNs = timeNs - this.clockOffsetNs - SKEW_NS;
    const toNs = timeNs - this.clockOffsetNs + STAMP_NS + SKEW_NS;
    let found = NONE;
    // The last that began before the line, and those that may have.
    let row = queue.end;
    while (row > queue.first && queue.timeOf(row - 1) > toNs) row--;
    while (row > queue.first) {
      row--;
      if (queue.fits(row, write, width, address, lo, hi)) {
        if (found !== NONE) return AMBIGUOUS;
        found = row;
      }
      // Those before it had come to their end.
      if (queue.timeOf(row) <= fromNs) return found;
    }
    if (this.#sinceNs === -Infinity) return found;
    // It may be of an access before all that is known.
    return found === NONE ? UNKNOWN : AMBIGUOUS;
  }

  /** Whether more may come that had begun when a line was written; of one without a stamp, always. */
  #lacks(timeNs: number): boolean {
    return !(this.#knownUntilNs >= timeNs - this.clockOffsetNs + STAMP_NS + SKEW_NS);
  }

  /**
   * The log had been read to its end after the last `take`, and all its lines are joined: what is
   * left has no line, but for what QEMU may be at right now.
   */
  caughtUp(): void {
    for (const queue of this.#queues.values()) {
      let row = queue.first;
      const end = queue.isDone ? queue.end : queue.end - 1;
      for (; row < end; row++) {
        if (queue.aligned && queue.told === 0 && this.#isRecorded(queue.addressOf(row))) {
          this.#counts.unlogged++;
        }
      }
      queue.dropFirst(Math.max(row, queue.first));
      if (queue.length === 0 && queue.isDone) queue.aligned = true;
    }
  }
}

const NONE = -1;
const AMBIGUOUS = -2;
const UNKNOWN = -3;
