/**
 * What the server knows of a capture by heart, so that it need not hold its accesses: where in the
 * file blocks of some ten thousand lie, which registers each touches, and everything that is not
 * an access.
 */
import { AccessBatch } from '../model/access-batch.ts';
import { MmioError } from '../base/errors.ts';
import type { EndEvent, RecordingEvent, RecordingHeader } from '../model/events.ts';
import { Tables } from '../model/tables.ts';
import { type PlacedItem, readPlaced } from '../sources/capture-file.ts';
import { FILE_HEADER_BYTES, FRAME_HEADER_BYTES, readU32 } from '../wire/frame.ts';
import { MAX_EVENT_BYTES, PayloadDecoder } from '../wire/payload.ts';
import { FileFollower } from './file-follower.ts';
import { Holes } from './holes.ts';
import { checkEnd, SAYS_INCOMPLETE } from '../analysis/end-check.ts';
import { RegisterTable } from '../analysis/register-table.ts';
import { StreamCheck } from '../analysis/stream-check.ts';
import { TotalsAnalysis, type Totals } from '../analysis/totals.ts';

/** A block is closed by the batch that takes it there. */
const BLOCK_ROWS = 16_384;
/** The first byte of a frame's payload that has an access batch in it. */
const BATCH_TAG = 0x12;
/** What is read at once of frames of events: at least one whole one. */
const EVENT_BYTES = FRAME_HEADER_BYTES + MAX_EVENT_BYTES;
/** A person reads no more. */
const MAX_DOUBTS = 20;

export interface Block {
  /** Of the first frame in the file, and behind the last. */
  readonly from: number;
  to: number;
  /** Number of the first access in the recording. */
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
  readonly interruptNs: number[] = [];
  readonly follower: FileFollower;
  header: RecordingHeader | undefined;
  /** As it was checked: complete only where it says so and is right. */
  end: EndEvent | undefined;
  /** What speaks against what the recording says of itself. */
  readonly doubts: string[] = [];
  readonly holes = new Holes();
  /** Behind the last frame that was read. */
  framesEnd = FILE_HEADER_BYTES;
  readonly listeners = new Set<BatchListener>();

  readonly #totals = new TotalsAnalysis();
  #check = new StreamCheck(undefined);
  #isBlockOpen = false;
  #hasMore = false;
  #unknownFrames = 0;
  readonly #lastBlock: number[] = [];
  /** Where in the file frames of events stand one behind the other: from, to, from, … */
  readonly #eventsAt: number[] = [];

  constructor(follower: FileFollower) {
    this.follower = follower;
  }

  /**
   * Reads until the recording has ended, or the signal says so. Throws MmioError `damaged` if it
   * is no capture, `closed` if the file is replaced meanwhile.
   */
  async read(signal: AbortSignal): Promise<void> {
    for await (const placed of readPlaced(this.follower.chunks(signal))) {
      if (signal.aborted) return;
      this.#take(placed);
    }
  }

  get totals(): Totals {
    return this.#totals.result();
  }

  /** Frames of kinds that this version does not know; passed over. */
  get unknownFrames(): number {
    return this.#unknownFrames;
  }

  get rows(): number {
    const last = this.blocks.at(-1);
    return last === undefined ? 0 : last.firstRow + last.rows;
  }

  #take({ item, from, to, timeNs, isDamage }: PlacedItem): void {
    if (this.end !== undefined) this.#afterEnd();
    this.framesEnd = Math.max(this.framesEnd, to);
    if (isDamage) {
      // A block has no damaged frame in it: read again, it would be taken for accesses.
      this.#isBlockOpen = false;
      this.#takeEvent(item as RecordingEvent);
      return;
    }
    if (item instanceof AccessBatch) {
      this.#doubt(this.#check.check(item));
      this.#takeBatch(item, from, to);
      return;
    }
    if (item.kind === 'unknown') {
      this.#unknownFrames++;
      return;
    }
    if (item.kind === 'header') {
      this.header = item.header;
      this.#check = new StreamCheck(item.header);
    } else {
      this.holes.passed(timeNs);
      this.#doubt(this.#check.check(item));
      this.#takeEvent(item);
    }
    // Pages get interrupts as counts, and holes with where they are.
    if (item.kind === 'interrupt' || item.kind === 'loss' || item.kind === 'damage') return;
    if (this.#eventsAt.at(-1) === from) this.#eventsAt.pop();
    else this.#eventsAt.push(from);
    this.#eventsAt.push(to);
  }

  #doubt(complaint: string | undefined): void {
    if (complaint === undefined || this.doubts.length >= MAX_DOUBTS) return;
    this.doubts.push(`it has ${complaint}`);
  }

  #takeEvent(event: RecordingEvent): void {
    if (event.kind === 'end') {
      this.#takeEnd(event);
      return;
    }
    this.tables.apply(event);
    this.#totals.event(event);
    if (event.kind === 'interrupt') this.interruptNs.push(event.timeNs);
    else if (event.kind === 'loss' || event.kind === 'damage') this.holes.add(event, this.rows);
  }

  #takeEnd(told: EndEvent): void {
    if (this.end !== undefined) return;
    const { end, loss, doubts } = checkEnd(told, this.totals);
    if (loss !== undefined) this.#takeEvent(loss);
    this.#totals.event(told);
    this.doubts.push(...doubts.filter((doubt) => doubt !== SAYS_INCOMPLETE));
    this.end = { ...end, complete: end.complete && this.doubts.length === 0 };
    this.follower.complete();
  }

  /** Said once, of whatever stands there. */
  #afterEnd(): void {
    if (this.#hasMore || this.end === undefined) return;
    this.#hasMore = true;
    this.doubts.push('something stands behind its end');
    this.end = { ...this.end, complete: false };
  }

  /** Where the frames that are not accesses end. */
  get eventsEnd(): number {
    return this.#eventsAt.at(-1) ?? 0;
  }

  /**
   * Payloads of frames that are neither accesses nor interrupts, from an offset in the file on (0:
   * the header comes first), and the offset from which to go on.
   */
  async events(
    from: number,
  ): Promise<{ readonly frames: readonly Uint8Array[]; readonly next: number }> {
    const frames: Uint8Array[] = [];
    let next = from;
    let bytes = 0;
    for (
      let at = this.#extentAt(from);
      bytes < EVENT_BYTES && at < this.#eventsAt.length;
      at += 2
    ) {
      const start = Math.max(from, this.#eventsAt[at]!);
      const end = Math.min(this.#eventsAt[at + 1]!, start + EVENT_BYTES);
      next = start;
      for (const payload of wholePayloads(await this.follower.read(start, end))) {
        next += FRAME_HEADER_BYTES + payload.length;
        frames.push(payload);
      }
      bytes += next - start;
    }
    return { frames, next };
  }

  /** The index of the first extent that ends behind an offset. */
  #extentAt(offset: number): number {
    let low = 0;
    let high = this.#eventsAt.length / 2;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#eventsAt[2 * middle + 1]! <= offset) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }

  #takeBatch(batch: AccessBatch, from: number, to: number): void {
    if (batch.length === 0) return;
    const block = this.#blockFor(from);
    const number = this.blocks.length - 1;
    const registers = this.registers.column(batch);
    this.holes.passed(batch.timeNs[0]!);
    let { minNs, maxNs } = block;
    this.#totals.batch(batch);
    for (let row = 0; row < batch.length; row++) {
      const time = batch.timeNs[row]!;
      if (time < minNs) minNs = time;
      if (time > maxNs) maxNs = time;
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
    for (const listener of this.listeners) listener(batch, registers, number);
  }

  #blockFor(from: number): Block {
    const open = this.blocks.at(-1);
    if (open !== undefined && open.rows < BLOCK_ROWS && this.#isBlockOpen) return open;
    this.#isBlockOpen = true;
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

  /** The blocks that touch a register, ascending. */
  blocksOf(register: number): number[] {
    const found: number[] = [];
    if (register < 0) return found;
    let block = this.blocks.findLastIndex(({ touched }) => touched.includes(register));
    for (; block >= 0; block = this.blockBefore(block, register)) found.push(block);
    return found.toReversed();
  }

  /** The batches of a block as it is now, one after the other; each overwrites the one before. */
  async *batches(block: Block): AsyncGenerator<AccessBatch, void, undefined> {
    const decoder = new PayloadDecoder();
    const bytes = await this.follower.read(block.from, block.to);
    for (const payload of wholePayloads(bytes)) {
      if (payload[0] !== BATCH_TAG) continue;
      const item = decodeOrSkip(decoder, payload);
      if (item !== undefined && item.length > 0) yield item;
    }
  }
}

/** The payloads of frames that stand one behind the other; the last may be cut off. */
function* wholePayloads(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at + FRAME_HEADER_BYTES <= bytes.length;) {
    const start = at + FRAME_HEADER_BYTES;
    at = start + readU32(bytes, at);
    if (at > bytes.length) return;
    yield bytes.subarray(start, at);
  }
}

/** Undefined for a frame that was found damaged when it was first read. */
function decodeOrSkip(decoder: PayloadDecoder, payload: Uint8Array): AccessBatch | undefined {
  try {
    const item = decoder.decode(payload);
    return item instanceof AccessBatch ? item : undefined;
  } catch (error) {
    if (error instanceof MmioError) return undefined;
    throw error;
  }
}
