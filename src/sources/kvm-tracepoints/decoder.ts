/**
 * The accesses of a guest, from KVM's tracepoints alone: frames of the spool in, batches and events
 * out, as `QemuLogDecoder` has them for QEMU's log.
 *
 * All of a round is read at once, and `position` is always between two: with `snapshot` it is all
 * that another process needs to go on.
 */
import { hex } from '../../base/format.ts';
import { escapeBytes } from '../../base/escape.ts';
import type { SourcePosition } from '../../model/position.ts';
import type { SpoolDecoder } from '../spool-decoder.ts';
import { RawBatch } from '../raw-batch.ts';
import type { RawEvent, RawTarget } from '../raw-events.ts';
import { Kind } from './events.ts';
import type { KvmFormats } from './formats.ts';
import { FrameKind, HEAD_BYTES, MAGIC, MAX_BODY_BYTES } from './frames.ts';
import { PageReader } from './pages.ts';
import { Rounds, type RoundsSnapshot } from './rounds.ts';

const BATCH_ROWS = 4096;
const MAGIC_BYTES = Buffer.from('KVMP', 'latin1');
/** More than the kernel's buffers hold: a round that does not end is none. */
const MAX_ROUND_BYTES = 512 * 1024 * 1024;

interface ThreadState {
  pcLo: number;
  pcHi: number;
  /** Bytes of the reads that KVM has no answer to yet. */
  asked: number;
}

export interface KvmDecoderSnapshot {
  readonly records: number;
  readonly rounds: RoundsSnapshot;
  readonly threads: readonly (readonly [number, ThreadState])[];
  readonly vcpus: readonly (readonly [number, number])[];
}

export class KvmDecoder implements SpoolDecoder {
  readonly targets: readonly RawTarget[] = [{ kind: 'guest-address' }];
  readonly otherLines: ReadonlyMap<string, number> = new Map();
  readonly stampedLines = 0;
  readonly unstampedLines = 0;
  /** vCPU of each thread; what other threads do is not taken. */
  vcpuOfThread: ReadonlyMap<number, number>;

  readonly #pages: PageReader;
  readonly #rounds: Rounds;
  /** Session time of the trace's base. */
  readonly #originNs: number;
  readonly #isRecorded: (address: number) => boolean;
  readonly #threads: Map<number, ThreadState>;
  readonly #batch = new RawBatch(BATCH_ROWS);
  readonly #queue: RawEvent[] = [];

  #segment = 0;
  #offset = 0;
  /** From the beginning of a round on; looked through until #scanned. */
  #bytes: Buffer = Buffer.alloc(0);
  #scanned = 0;
  /** Rows of #rounds.events that are handed out. */
  #row = 0;
  #timeNs: number;

  constructor(options: {
    readonly formats: KvmFormats;
    readonly baseNs: bigint;
    readonly originNs: number;
    /** Whether an address is of a BAR that is recorded. */
    readonly isRecorded: (address: number) => boolean;
    readonly from?: KvmDecoderSnapshot | undefined;
  }) {
    this.#pages = new PageReader(options.formats, options.baseNs);
    this.#pages.records = options.from?.records ?? 0;
    this.#rounds = new Rounds(this.#pages, options.from?.rounds);
    this.#threads = new Map(options.from?.threads.map(([id, state]) => [id, { ...state }]));
    this.vcpuOfThread = new Map(options.from?.vcpus);
    this.#originNs = options.originNs;
    this.#isRecorded = options.isRecorded;
    this.#timeNs = options.originNs;
  }

  get position(): SourcePosition {
    return { segment: this.#segment, offset: this.#offset };
  }

  snapshot(): KvmDecoderSnapshot {
    return {
      records: this.#pages.records,
      rounds: this.#rounds.snapshot(),
      threads: [...this.#threads],
      vcpus: [...this.vcpuOfThread],
    };
  }

  beginSegment(segment: number, offset: number): void {
    this.#segment = segment;
    this.#offset = offset;
    this.#bytes = Buffer.alloc(0);
    this.#scanned = 0;
  }

  feed(chunk: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
  }

  /** The segment is at its end: what is left of a round is damage. */
  finish(): void {
    if (this.#bytes.length > 0)
      this.#damage('cut off in the middle of a round', this.#bytes.length);
  }

  next(): RawBatch | RawEvent | undefined {
    this.#batch.length = 0;
    for (;;) {
      const event = this.#queue.shift();
      if (event !== undefined) return event;
      while (this.#row < this.#rounds.events.length) {
        if (this.#batch.length === BATCH_ROWS) return this.#handOut();
        this.#record(this.#row++);
        if (this.#queue.length > 0) break;
      }
      if (this.#batch.length > 0) return this.#handOut();
      if (this.#queue.length === 0 && !this.#nextRound()) return undefined;
    }
  }

  #handOut(): RawBatch {
    this.#batch.position = this.position;
    return this.#batch;
  }

  /** Reads frames up to the end of a round; false where more bytes are needed. */
  #nextRound(): boolean {
    for (;;) {
      const bytes = this.#bytes;
      const at = this.#scanned;
      if (at + HEAD_BYTES > bytes.length) return false;
      const length = bytes.readUInt32LE(at + 8);
      if (bytes.readUInt32LE(at) !== MAGIC || length > MAX_BODY_BYTES || at > MAX_ROUND_BYTES) {
        const next = bytes.indexOf(MAGIC_BYTES, at + 1);
        this.#damage('not a frame of the trace', next < 0 ? bytes.length : next);
        return true;
      }
      if (at + HEAD_BYTES + length > bytes.length) return false;
      this.#scanned = at + HEAD_BYTES + length;
      const kind = bytes.readUInt16LE(at + 4);
      if (kind === FrameKind.page || length !== 8) continue;
      const value = bytes.readDoubleLE(at + HEAD_BYTES);
      if (kind === FrameKind.roundEnd) this.#readRound(at, value);
      else if (kind === FrameKind.takenOver) this.#takenOver(value);
      this.#advance(this.#scanned);
      return true;
    }
  }

  #readRound(end: number, beganNs: number): void {
    const bytes = this.#bytes;
    for (let at = 0; at < end;) {
      const length = bytes.readUInt32LE(at + 8);
      const body = at + HEAD_BYTES;
      if (bytes.readUInt16LE(at + 4) === FrameKind.page) {
        this.#rounds.page(bytes.readUInt16LE(at + 6), bytes.subarray(body, body + length));
      }
      at = body + length;
    }
    this.#rounds.end(beganNs);
    this.#row = 0;
  }

  #advance(count: number): void {
    this.#bytes = this.#bytes.subarray(count);
    this.#offset += count;
    this.#scanned = 0;
  }

  #damage(reason: string, count: number): void {
    this.#queue.push({
      kind: 'damage',
      timeNs: this.#timeNs,
      position: this.position,
      reason,
      evidence: escapeBytes(this.#bytes.subarray(this.#scanned, this.#scanned + 200), 200),
    });
    this.#advance(count);
  }

  /** Another recorder goes on; what it finds read and not written down is lost. */
  #takenOver(recordsRead: number): void {
    const missing = recordsRead - this.#pages.records;
    if (recordsRead < 0) {
      this.#loss(-1, 'the trace of the recorder that was killed was gone');
    } else if (missing > 0) {
      this.#loss(-1, `the recorder was killed with ${missing} records in its hands`);
    }
    if (recordsRead < 0 || missing > 0) this.#threads.clear();
    this.#pages.records = Math.max(0, recordsRead);
  }

  #loss(count: number, reason: string): void {
    this.#queue.push({ kind: 'loss', timeNs: this.#timeNs, count, durationNs: 0, reason });
  }

  /** What the kernel does not tell of an access, if it is one of those that are recorded. */
  #untold(row: number, count: number, reason: string): void {
    const address = this.#rounds.events.address[row]!;
    if (this.#isRecorded(address)) this.#loss(count, `${reason} (at ${hex(address)})`);
  }

  #record(row: number): void {
    const events = this.#rounds.events;
    const kind = events.kind[row]!;
    this.#timeNs = Math.round(events.timeNs[row]! + this.#originNs);
    if (kind === Kind.lost) {
      // Whose they were nobody knows: each vCPU may be at another instruction by now.
      this.#threads.clear();
      const known = events.hi[row] === 0 ? `: ${events.lo[row]} records` : '';
      this.#loss(-1, `the kernel's ring buffer overran${known}`);
      return;
    }
    const thread = events.thread[row]!;
    const cpu = this.vcpuOfThread.get(thread);
    if (cpu === undefined) return;
    let state = this.#threads.get(thread);
    if (state === undefined) {
      this.#threads.set(thread, (state = { pcLo: 0, pcHi: 0, asked: 0 }));
    }
    const width = events.width[row]!;
    switch (kind) {
      case Kind.instruction:
      case Kind.portInstruction:
        state.pcLo = events.lo[row]!;
        state.pcHi = events.hi[row]!;
        state.asked = 0;
        return;
      case Kind.readAsked:
        state.asked += width;
        return;
      case Kind.read:
        this.#access(row, cpu, state, Math.max(width, state.asked));
        state.asked = 0;
        return;
      case Kind.write:
        this.#access(row, cpu, state, width);
        return;
      case Kind.portRead:
      case Kind.portWrite: {
        this.#access(row, cpu, state, width);
        const more = events.count[row]! - 1;
        if (more > 0) this.#untold(row, more, 'the kernel tells one value of a string instruction');
        return;
      }
    }
  }

  /** @param wholeBytes of the access, of which the record may tell the beginning only */
  #access(row: number, cpu: number, { pcLo, pcHi }: ThreadState, wholeBytes: number): void {
    const events = this.#rounds.events;
    const batch = this.#batch;
    const width = Math.min(8, events.width[row]!);
    if (width !== 1 && width !== 2 && width !== 4 && width !== 8) {
      this.#untold(row, 1, `an access of ${width} bytes`);
      return;
    }
    const kind = events.kind[row]!;
    const out = batch.length++;
    const lo = events.lo[row]!;
    batch.timeNs[out] = this.#timeNs;
    batch.thread[out] = events.thread[row]!;
    batch.op[out] = kind === Kind.write || kind === Kind.portWrite ? 1 : 0;
    batch.width[out] = width;
    batch.target[out] = 0;
    batch.offset[out] = events.address[row]!;
    batch.valueLo[out] = width === 1 ? lo & 0xff : width === 2 ? lo & 0xffff : lo;
    batch.valueHi[out] = width === 8 ? events.hi[row]! : 0;
    batch.cpu[out] = cpu;
    batch.pcLo[out] = pcLo;
    batch.pcHi[out] = pcHi;
    if (wholeBytes > width) {
      this.#untold(row, 1, `the kernel tells the first ${width} of ${wholeBytes} bytes`);
    }
  }
}
