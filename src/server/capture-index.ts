/**
 * What the server knows of a capture by heart, so that it need not hold its accesses: where in the
 * file blocks of some ten thousand lie, which registers each touches, and everything that is not
 * an access.
 */
import type { AccessBatch } from '../model/access-batch.ts';
import { MmioError } from '../base/errors.ts';
import type { EndEvent, RecordingEvent, RecordingHeader } from '../model/events.ts';
import { isBatch } from '../model/stream.ts';
import { Tables } from '../model/tables.ts';
import { type DamagePiece, type FramePiece, readFrames } from '../wire/frame-reader.ts';
import { FILE_HEADER_BYTES, FRAME_HEADER_BYTES, readU32 } from '../wire/frame.ts';
import { PayloadDecoder } from '../wire/payload.ts';
import { FileFollower } from './file-follower.ts';
import { RegisterTable } from '../analysis/register-table.ts';

/** A block is closed by the batch that takes it there. */
const BLOCK_ROWS = 16_384;
/** The first byte of a frame's payload that has an access batch in it. */
const BATCH_TAG = 0x12;
/** Frames that are kept for those who come later. */
const MAX_EVENTS = 200_000;

export interface Block {
  /** Of the first frame in the file, and behind the last. */
  readonly from: number;
  to: number;
  /** Place of the first access in the recording. */
  readonly firstRow: number;
  rows: number;
  minNs: number;
  maxNs: number;
  /** Registers that it touches, and for each the block that touched it before, -1 for none. */
  readonly touched: number[];
  readonly before: number[];
}

/** Is handed each batch as it comes, with the register of each row. */
export type BatchListener = (batch: AccessBatch, registers: Uint32Array, block: number) => void;

export class CaptureIndex {
  readonly tables = new Tables();
  readonly registers = new RegisterTable();
  readonly blocks: Block[] = [];
  /** Payloads of frames that are not accesses, but for interrupts; the header first. */
  readonly events: Uint8Array[] = [];
  readonly interruptNs: number[] = [];
  readonly follower: FileFollower;
  header: RecordingHeader | undefined;
  end: EndEvent | undefined;
  /** Behind the last frame that was read. */
  framesEnd = FILE_HEADER_BYTES;
  rows = 0;
  reads = 0;
  writes = 0;
  lost = 0;
  lossEvents = 0;
  damages = 0;
  lastTimeNs = 0;
  readonly listeners = new Set<BatchListener>();

  readonly #lastBlock: number[] = [];

  constructor(follower: FileFollower) {
    this.follower = follower;
  }

  /**
   * Reads until the recording has ended, or the signal says so. Throws MmioError `damaged` if it
   * is no capture, `closed` if the file is replaced meanwhile.
   */
  async read(signal: AbortSignal): Promise<void> {
    const decoder = new PayloadDecoder();
    for await (const piece of readFrames(this.follower.chunks(signal))) {
      if (signal.aborted) return;
      this.#take(decoder, piece);
    }
  }

  #take(decoder: PayloadDecoder, piece: FramePiece | DamagePiece): void {
    if (piece.kind === 'damage') {
      this.damages++;
      return;
    }
    const to = piece.offset + FRAME_HEADER_BYTES + piece.payload.length;
    this.framesEnd = to;
    let item;
    try {
      item = decoder.decode(piece.payload);
    } catch (error) {
      if (!(error instanceof MmioError)) throw error;
      this.damages++;
      return;
    }
    if (isBatch(item as AccessBatch)) {
      this.#takeBatch(item as AccessBatch, piece.offset, to);
      return;
    }
    const event = item as RecordingEvent | { kind: 'header'; header: RecordingHeader };
    if (event.kind === 'header') this.header = event.header;
    else this.#takeEvent(event);
    if (event.kind !== 'interrupt' && this.events.length < MAX_EVENTS) {
      this.events.push(piece.payload.slice());
    }
  }

  #takeEvent(event: RecordingEvent): void {
    this.tables.apply(event);
    if (event.timeNs > this.lastTimeNs) this.lastTimeNs = event.timeNs;
    if (event.kind === 'interrupt') this.interruptNs.push(event.timeNs);
    else if (event.kind === 'damage') this.damages++;
    else if (event.kind === 'loss') {
      this.lossEvents++;
      this.lost += Math.max(0, event.count);
    } else if (event.kind === 'end') {
      this.end = event;
      this.follower.complete();
    }
  }

  #takeBatch(batch: AccessBatch, from: number, to: number): void {
    if (batch.length === 0) return;
    const block = this.#blockFor(from);
    const number = this.blocks.length - 1;
    const registers = this.registers.column(batch);
    let { minNs, maxNs } = block;
    let writes = 0;
    for (let row = 0; row < batch.length; row++) {
      const time = batch.timeNs[row]!;
      if (time < minNs) minNs = time;
      if (time > maxNs) maxNs = time;
      if (batch.op[row] === 1) writes++;
      const register = registers[row]!;
      const last = this.#lastBlock[register];
      if (last !== number) {
        block.touched.push(register);
        block.before.push(last ?? -1);
        this.#lastBlock[register] = number;
      }
    }
    block.minNs = minNs;
    block.maxNs = maxNs;
    block.to = to;
    block.rows += batch.length;
    this.rows += batch.length;
    this.writes += writes;
    this.reads += batch.length - writes;
    if (maxNs > this.lastTimeNs) this.lastTimeNs = maxNs;
    for (const listener of this.listeners) listener(batch, registers, number);
  }

  #blockFor(from: number): Block {
    const open = this.blocks.at(-1);
    if (open !== undefined && open.rows < BLOCK_ROWS) return open;
    const block: Block = {
      from,
      to: from,
      firstRow: this.rows,
      rows: 0,
      minNs: Infinity,
      maxNs: -Infinity,
      touched: [],
      before: [],
    };
    this.blocks.push(block);
    return block;
  }

  /** The block that touched the register last before this one, which touches it, too; or -1. */
  blockBefore(block: number, register: number): number {
    const at = this.blocks[block];
    return at?.before[at.touched.indexOf(register)] ?? -1;
  }

  /** The batches of a block as it is now, one after the other; each overwrites the one before. */
  async *batches(block: Block): AsyncGenerator<AccessBatch, void, undefined> {
    const decoder = new PayloadDecoder();
    const bytes = await this.follower.read(block.from, block.to);
    for (let at = 0; at < bytes.length;) {
      const payload = bytes.subarray(
        at + FRAME_HEADER_BYTES,
        at + FRAME_HEADER_BYTES + readU32(bytes, at),
      );
      at += FRAME_HEADER_BYTES + payload.length;
      if (payload[0] !== BATCH_TAG) continue;
      const item = decodeOrSkip(decoder, payload);
      if (item !== undefined && item.length > 0) yield item;
    }
  }
}

/** Undefined for a frame that was found damaged when it was first read. */
function decodeOrSkip(decoder: PayloadDecoder, payload: Uint8Array): AccessBatch | undefined {
  try {
    return decoder.decode(payload) as AccessBatch;
  } catch (error) {
    if (error instanceof MmioError) return undefined;
    throw error;
  }
}
