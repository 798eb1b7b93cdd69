/**
 * The accesses of a guest, from the QEMU plugin: frames of the spool in, batches and events out, as
 * `QemuLogDecoder` has them for QEMU's log, which it reads, too: mappings, interrupts, resets and
 * configuration space come from there.
 */
import type { SourcePosition } from '../../model/position.ts';
import { QemuLogDecoder, type DecoderOptions } from '../qemu-log/decoder.ts';
import { lineCountsOf, type LineCounts, type SpoolDecoder } from '../spool-decoder.ts';
import { RawBatch } from '../raw-batch.ts';
import type { RawEvent, RawTarget } from '../raw-events.ts';
import { FrameKind, LOG_HEAD_BYTES, logPositionOf } from './frames.ts';
import { HEAD_BYTES, RECORD_BYTES, RecordField, RecordFlag, WireType } from './wire.ts';

const BATCH_ROWS = 4096;
const TWO_32 = 2 ** 32;

export interface PluginDecoderSnapshot {
  /** By vCPU: what number its next access has. */
  readonly numbers: readonly number[];
  /** Where QEMU's log goes on; null: nothing of it has been read. */
  readonly log: SourcePosition | null;
  readonly lines: LineCounts;
}

export class PluginDecoder implements SpoolDecoder {
  readonly #log: QemuLogDecoder;
  readonly #target: number;
  readonly #batch = new RawBatch(BATCH_ROWS);
  readonly #queue: RawEvent[] = [];
  readonly #numbers: number[];
  /** Session time 0, as a record has it. */
  readonly #startLo: number;
  readonly #startHi: number;
  #logPosition: SourcePosition | null;
  #timeNs = 0;

  #segment = 0;
  #offset = 0;
  /** From the beginning of a frame on. */
  #bytes: Buffer = Buffer.alloc(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  /** The next record of the frame; 0 where the frame has not been looked at. */
  #at = 0;
  #inLog = false;

  constructor(
    options: DecoderOptions & {
      readonly start: { readonly sec: number; readonly ns: number };
      readonly from?: PluginDecoderSnapshot | undefined;
    },
  ) {
    const { start, from } = options;
    this.#log = new QemuLogDecoder({ ...options, counts: from?.lines });
    this.#target = this.#log.internTarget({ kind: 'guest-address' });
    this.#numbers = [...(from?.numbers ?? [])];
    this.#logPosition = from?.log ?? null;
    const startNs = BigInt(start.sec) * 1_000_000_000n + BigInt(start.ns);
    this.#startLo = Number(startNs & 0xffff_ffffn);
    this.#startHi = Number(startNs >> 32n);
  }

  get targets(): readonly RawTarget[] {
    return this.#log.targets;
  }
  get otherLines(): ReadonlyMap<string, number> {
    return this.#log.otherLines;
  }
  get stampedLines(): number {
    return this.#log.stampedLines;
  }
  get unstampedLines(): number {
    return this.#log.unstampedLines;
  }

  /** Everything before it has been handed out; always the start of a frame. */
  get position(): SourcePosition {
    return { segment: this.#segment, offset: this.#offset };
  }

  snapshot(): PluginDecoderSnapshot {
    return { numbers: [...this.#numbers], log: this.#logPosition, lines: lineCountsOf(this.#log) };
  }

  beginSegment(segment: number, offset: number): void {
    this.#segment = segment;
    this.#offset = offset;
    this.#setBytes(Buffer.alloc(0));
  }

  /** Hands over more bytes. All earlier items must have been taken by `next`. */
  feed(chunk: Uint8Array): void {
    this.#setBytes(Buffer.concat([this.#bytes, chunk]));
  }

  /**
   * The segment is at its end. A frame that is cut off is of a recorder that was killed: the gap in
   * the numbers tells what is missing, and the log is read again from the position before.
   */
  finish(): void {
    this.#advance(this.#bytes.length);
  }

  #setBytes(bytes: Buffer): void {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  #advance(count: number): void {
    this.#setBytes(this.#bytes.subarray(count));
    this.#offset += count;
    this.#at = 0;
    this.#inLog = false;
  }

  /** As `QemuLogDecoder.next`. */
  next(): RawBatch | RawEvent | undefined {
    this.#batch.length = 0;
    for (;;) {
      const event = this.#queue.shift();
      if (event !== undefined) return event;
      const bytes = this.#bytes;
      const frame = bytes.length < HEAD_BYTES ? Infinity : HEAD_BYTES + bytes.readUInt32LE(4);
      const kind = frame > bytes.length ? undefined : bytes.readUInt32LE(0);
      if (kind === WireType.records) {
        this.#records(frame);
        if (this.#at >= frame) this.#advance(frame);
        const full = this.#batch.length >= BATCH_ROWS - 1;
        if (!full && this.#queue.length === 0) continue;
      }
      // Rows come before what stopped them.
      if (this.#batch.length > 0) return this.#handOut();
      if (kind === undefined) return undefined;
      if (kind === FrameKind.log) {
        const item = this.#logItem(frame);
        if (item !== undefined) return item;
      } else if (kind !== WireType.records) {
        this.#lastWords(kind, frame);
        this.#advance(frame);
      }
    }
  }

  #handOut(): RawBatch {
    this.#batch.position = this.position;
    return this.#batch;
  }

  /** Fills the batch up, until the end of the frame or a gap, which is queued. */
  #records(end: number): void {
    if (this.#at === 0) this.#at = HEAD_BYTES;
    const view = this.#view;
    const batch = this.#batch;
    const { timeNs, thread, op, width, target, offset, valueLo, valueHi, cpu, pcLo, pcHi } = batch;
    let at = this.#at;
    let out = batch.length;
    // One record may become two rows.
    for (; at < end && out < BATCH_ROWS - 1; at += RECORD_BYTES) {
      const vcpu = view.getUint16(at + RecordField.vcpu, true);
      const number = view.getUint32(at + RecordField.number, true);
      this.#timeNs = this.#sessionTime(at + RecordField.timeNs);
      if (number !== (this.#numbers[vcpu] ?? 0)) {
        if (out > batch.length) break;
        this.#gap(vcpu, number);
        break;
      }
      this.#numbers[vcpu] = (number + 1) >>> 0;
      const bytes = view.getUint8(at + RecordField.width);
      const lo = view.getUint32(at + RecordField.valueLo, true);
      timeNs[out] = this.#timeNs;
      thread[out] = 0;
      op[out] = view.getUint8(at + RecordField.flags) & RecordFlag.write;
      width[out] = Math.min(bytes, 8);
      target[out] = this.#target;
      offset[out] =
        view.getUint32(at + RecordField.gpa + 4, true) * TWO_32 +
        view.getUint32(at + RecordField.gpa, true);
      valueLo[out] = bytes === 1 ? lo & 0xff : bytes === 2 ? lo & 0xffff : lo;
      valueHi[out] = bytes < 8 ? 0 : view.getUint32(at + RecordField.valueLo + 4, true);
      cpu[out] = vcpu;
      pcLo[out] = view.getUint32(at + RecordField.pc, true);
      pcHi[out] = view.getUint32(at + RecordField.pc + 4, true);
      out++;
      // 16 bytes are two accesses to a device, as QEMU has them.
      if (bytes === 16) {
        batch.copyRow(out - 1, out);
        offset[out]! += 8;
        valueLo[out] = view.getUint32(at + RecordField.valueHi, true);
        valueHi[out] = view.getUint32(at + RecordField.valueHi + 4, true);
        out++;
      }
    }
    this.#at = at;
    batch.length = out;
  }

  #sessionTime(at: number): number {
    const lo = this.#view.getUint32(at, true);
    const hi = this.#view.getUint32(at + 4, true);
    return (hi - this.#startHi) * TWO_32 + (lo - this.#startLo);
  }

  /** The next access of a vCPU is not the one that it should be. */
  #gap(vcpu: number, number: number): void {
    const count = (number - (this.#numbers[vcpu] ?? 0)) >>> 0;
    this.#numbers[vcpu] = number;
    this.#loss(count, `accesses of vCPU ${vcpu} that the plugin could not send`);
  }

  #loss(count: number, reason: string): void {
    this.#queue.push({ kind: 'loss', timeNs: this.#timeNs, count, durationNs: 0, reason });
  }

  #lastWords(kind: number, frame: number): void {
    if (kind === FrameKind.gone) {
      this.#loss(-1, 'the plugin ended without a farewell: what it had not yet sent is missing');
    } else if (kind === WireType.farewell) {
      for (let at = HEAD_BYTES, vcpu = 0; at + 4 <= frame; at += 4, vcpu++) {
        const number = this.#view.getUint32(at, true);
        if (number !== (this.#numbers[vcpu] ?? 0)) this.#gap(vcpu, number);
      }
    }
  }

  #logItem(frame: number): RawBatch | RawEvent | undefined {
    if (!this.#inLog) {
      this.#log.feed(this.#bytes.subarray(HEAD_BYTES + LOG_HEAD_BYTES, frame));
      this.#inLog = true;
    }
    for (let item; (item = this.#log.next()) !== undefined;) {
      if (!(item instanceof RawBatch)) {
        if (!Number.isNaN(item.timeNs)) this.#timeNs = item.timeNs;
        return item;
      }
      // What else the user has QEMU trace is in the plugin's own records.
      if (item.keepRows((row) => this.targets[item.target[row]!]?.kind === 'vfio-config')) {
        return item;
      }
    }
    this.#logPosition = logPositionOf(this.#bytes);
    this.#advance(frame);
    return undefined;
  }
}
