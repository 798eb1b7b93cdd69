/**
 * QEMU's trace log, bytes in, batches and events out.
 *
 * The decoder is pulled: give it bytes with `feed`, then call `next` until it has no more. Between
 * two calls the caller may wait for slow sinks; nothing is parsed meanwhile.
 *
 * Nearly all lines of a recording are of two shapes, `vfio_region_*` and `memory_region_ops_*`, to
 * few targets. Those are read in place: literals are compared four bytes at a time, and the name of
 * the target is compared with the targets seen before instead of being cut out. Whatever does not
 * fit exactly goes through `grammar.ts` as a string. So the fast path can only be faster: a line
 * that it takes is a line that the grammar reads the same way.
 */
import { escapeBytes } from '../../base/escape.ts';
import { NO_CPU } from '../../model/access-batch.ts';
import type { SourcePosition } from '../../model/position.ts';
import {
  parseBody,
  splitPrefix,
  type ParsedAccess,
  type ParsedLine,
  type Stamp,
} from './grammar.ts';
import { matches, MAX_TEMPLATE_BYTES, TargetTable, template, type Template } from './targets.ts';
import { NO_LINES, type LineCounts, type SpoolDecoder } from '../spool-decoder.ts';
import { RawBatch } from '../raw-batch.ts';
import type { RawEvent, RawTarget } from '../raw-events.ts';

/** A longer line is damage. QEMU's trace lines are under 500 bytes. */
export const MAX_LINE_BYTES = 64 * 1024;
const BUFFER_BYTES = 1024 * 1024;
/** Comparisons may look past the last line. */
const SLACK_BYTES = MAX_TEMPLATE_BYTES + 56;
const MAX_OTHER_NAMES = 1000;
const MANY_OTHER_NAMES = '(more names)';

const NEWLINE = 0x0a;

const OPS_WRITE = template('memory_region_ops_write cpu ');
const OPS_READ = template('memory_region_ops_read cpu ');
const MR = word(' mr ');
const ADDR = template(' addr 0x');
const VALUE = template(' value 0x');
const SIZE = word(' siz');
const SIZE_END = word('ize ');
const WRITE_VALUE = word(', 0x');
const READ_WIDTH_END = word(') = ');
const ZERO_X = 0x7830;
/** The letter of the event's name that tells a write from a read: w of vfio_region_write. */
const VFIO_OP = 12;
const OPS_OP = 18;

export interface DecoderOptions {
  /** Rows of a batch. */
  readonly batchCapacity?: number;
  /** Wall clock at session time 0. Without it, that of the first line with a stamp is taken. */
  readonly start?: { readonly sec: number; readonly ns: number };
  /** Is handed each line that is not one of ours, newline included, as it comes by. */
  readonly onOtherLine?: (line: Uint8Array, name: string) => void;
  /** Names of events of ours whose lines somebody else wants, too: they go to `onOtherLine`. */
  readonly alsoOther?: (name: string) => boolean;
  /** What was counted before, where a recording is resumed. */
  readonly counts?: LineCounts | undefined;
}

/** A line that QEMU wrote elsewhere: what it says of accesses that failed goes to standard error. */
export interface Interjection {
  /** Session time; NaN where the line has no stamp. */
  readonly timeNs: number;
  /** Without the newline; one character a byte. */
  readonly text: string;
  /** Where it begins in the file that it is from. */
  readonly at: number;
}

const VFIO_EVENTS = ['vfio_region_read', 'vfio_region_write'];
const OPS_EVENTS = ['memory_region_ops_read', 'memory_region_ops_write'];
/** The events of which nearly all lines of a recording are, and which are read the fast way. */
export const FAST_EVENTS: readonly string[] = [...VFIO_EVENTS, ...OPS_EVENTS];

/** What a decoder knows of the log so far. */
export interface DecodedSoFar {
  /** Grows; batches have indexes into it. */
  readonly targets: readonly RawTarget[];
  /** Lines that are not ours, by the event's name. */
  readonly otherLines: ReadonlyMap<string, number>;
  /** Wall clock at session time 0, once it is known. */
  readonly start: { readonly sec: number; readonly ns: number } | undefined;
}

export class QemuLogDecoder implements DecodedSoFar, SpoolDecoder {
  readonly targets: readonly RawTarget[];
  readonly otherLines: Map<string, number>;
  /** Lines with and without a time stamp. */
  stampedLines: number;
  unstampedLines: number;

  readonly #options: DecoderOptions;
  #batch: RawBatch;
  #keepsRows = false;
  readonly #table = new TargetTable();
  readonly #bytes = Buffer.from(new ArrayBuffer(BUFFER_BYTES + SLACK_BYTES));
  readonly #view = new DataView(this.#bytes.buffer);
  /** The bytes not yet parsed are [#at, #end); whole lines among them end at #linesEnd. */
  #at = 0;
  #end = 0;
  #linesEnd = 0;
  /** What feed was given and has not yet been copied into the buffer. */
  #pending: Uint8Array = new Uint8Array(0);

  #segment = 0;
  /** Position in the segment of buffer index 0. */
  #bufferOffset = 0;
  #skippingLongLine = false;
  #event: RawEvent | undefined;
  readonly #interjected: Interjection[] = [];
  #due = 0;

  #startSec: number | undefined;
  #startNs = 0;

  // The stamp of the line that is being read, and the bytes of the last one, to be compared with.
  #timeNs = NaN;
  #thread = 0;
  #wholeSecondNs = 0;
  #stampBytes: Template = NO_STAMP;
  #stampIso = false;
  #stampThread = 0;

  /** Somebody else wants the lines of these, too: each goes the plain way. */
  readonly #plainVfio: boolean;
  readonly #plainOps: boolean;

  // What the scanners leave behind besides the position that they return.
  #lo = 0;
  #hi = 0;

  constructor(options: DecoderOptions = {}) {
    this.#options = options;
    this.#batch = new RawBatch(options.batchCapacity ?? 4096);
    this.targets = this.#table.targets;
    const { stamped, unstamped, others } = options.counts ?? NO_LINES;
    this.stampedLines = stamped;
    this.unstampedLines = unstamped;
    this.otherLines = new Map(others);
    const isWanted = (name: string) => options.alsoOther?.(name) ?? false;
    this.#plainVfio = VFIO_EVENTS.some(isWanted);
    this.#plainOps = OPS_EVENTS.some(isWanted);
    if (options.start !== undefined) {
      this.#startSec = options.start.sec;
      this.#startNs = options.start.ns;
    }
  }

  get start(): { readonly sec: number; readonly ns: number } | undefined {
    return this.#startSec === undefined ? undefined : { sec: this.#startSec, ns: this.#startNs };
  }

  /**
   * Lines that QEMU wrote elsewhere, in order: each is read where the log comes to its time. Those
   * that are there already come first.
   */
  interject(lines: readonly Interjection[]): void {
    this.#interjected.push(...lines);
  }

  /** All of the log up to the first so many of these lines has been fed. */
  interjectionsDue(count: number): void {
    this.#due = Math.min(count, this.#interjected.length);
  }

  /** Lines from elsewhere whose place has not been reached. */
  get interjections(): readonly Interjection[] {
    return this.#interjected;
  }

  /** The index of a target that no line names. */
  internTarget(target: RawTarget): number {
    return this.#table.intern(target);
  }

  /** Everything before it has been handed out. Always the start of a line. */
  get position(): SourcePosition {
    return { segment: this.#segment, offset: this.#bufferOffset + this.#at };
  }

  /** What follows comes from another segment, or another place of it. Call `finish` first. */
  beginSegment(segment: number, offset: number): void {
    this.#segment = segment;
    this.#bufferOffset = offset;
    this.#at = this.#end = this.#linesEnd = 0;
    this.#skippingLongLine = false;
  }

  /** Hands over more bytes, any number of them. All earlier ones must have been taken by `next`. */
  feed(chunk: Uint8Array): void {
    this.#pending = chunk;
  }

  /** From now on rows are added to this batch, behind those it has; nobody else takes them out. */
  fill(batch: RawBatch): void {
    this.#batch = batch;
    this.#keepsRows = true;
  }

  /**
   * A full or, at the end of what was fed, a partial batch; or an event; or `undefined` when more
   * bytes are needed. A batch is valid until the next call.
   */
  next(): RawBatch | RawEvent | undefined {
    const batch = this.#batch;
    if (this.#event !== undefined) {
      const event = this.#event;
      this.#event = undefined;
      return event;
    }
    if (!this.#keepsRows) batch.length = 0;
    const before = batch.length;
    for (;;) {
      const readEnd = this.#interjected.length === 0 ? this.#linesEnd : this.#interjectedAt();
      while (this.#at < readEnd) {
        if (batch.length === batch.capacity) return this.#handOut(this.#at);
        this.#fastLines(readEnd);
        if (this.#at === readEnd || batch.length === batch.capacity) continue;
        const start = this.#at;
        this.#plainLine();
        if (this.#event === undefined) continue;
        return batch.length > before ? this.#handOut(start) : this.next();
      }
      if (this.#at >= this.#linesEnd) {
        if (this.#refill()) continue;
        if (this.#due === 0 || this.#event !== undefined) break;
      }
      if (batch.length === batch.capacity) return this.#handOut(this.#at);
      this.#takeInterjected();
      if (this.#event !== undefined) {
        return batch.length > before ? this.#handOut(this.#at) : this.next();
      }
    }
    if (batch.length > before) return this.#handOut(this.#at);
    return this.#event === undefined ? undefined : this.next();
  }

  /** All items of a stream that is one segment. A batch is valid until the next item is asked for. */
  async *decode(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<RawBatch | RawEvent> {
    for await (const chunk of chunks) {
      this.feed(chunk);
      for (let item; (item = this.next()) !== undefined;) yield item;
    }
    this.finish();
    for (let item; (item = this.next()) !== undefined;) yield item;
  }

  /** The segment is at its end: a last line without a newline is damage, and comes from `next`. */
  finish(): void {
    const left = this.#end - this.#at;
    if (left === 0) return;
    if (this.#skippingLongLine) this.#at = this.#end;
    else this.#damage('cut off in the middle of the line', this.#at, this.#end, this.#end);
    this.#linesEnd = this.#end;
  }

  #handOut(at: number): RawBatch {
    this.#batch.position = { segment: this.#segment, offset: this.#bufferOffset + at };
    return this.#batch;
  }

  /** Moves what is left of the buffer to its front and fills it up; false if there is nothing. */
  #refill(): boolean {
    if (this.#pending.length === 0) return false;
    if (this.#at > 0) {
      this.#bytes.copyWithin(0, this.#at, this.#end);
      this.#bufferOffset += this.#at;
      this.#end -= this.#at;
      this.#at = 0;
    }
    const count = Math.min(this.#pending.length, BUFFER_BYTES - this.#end);
    const from = this.#end;
    this.#bytes.set(this.#pending.subarray(0, count), from);
    this.#pending = this.#pending.subarray(count);
    this.#end += count;
    if (this.#skippingLongLine) return this.#skipLongLine();

    this.#linesEnd = this.#bytes.lastIndexOf(NEWLINE, this.#end - 1) + 1;
    if (this.#linesEnd === 0 && this.#end > MAX_LINE_BYTES) {
      this.#damage(`a line of more than ${MAX_LINE_BYTES} bytes`, 0, this.#end, this.#end);
      this.#skippingLongLine = true;
      return false;
    }
    return true;
  }

  #skipLongLine(): boolean {
    const newline = this.#bytes.subarray(0, this.#end).indexOf(NEWLINE);
    if (newline < 0) {
      this.#at = this.#end;
      this.#linesEnd = this.#end;
      return true;
    }
    this.#skippingLongLine = false;
    this.#at = newline + 1;
    this.#linesEnd = this.#bytes.lastIndexOf(NEWLINE, this.#end - 1) + 1;
    return true;
  }

  #damage(reason: string, start: number, end: number, goOnAt: number): void {
    this.#event = {
      kind: 'damage',
      timeNs: this.#timeNs,
      position: { segment: this.#segment, offset: this.#bufferOffset + start },
      reason,
      evidence: escapeBytes(this.#bytes.subarray(start, Math.min(end, start + 200)), 200),
    };
    this.#at = goOnAt;
  }

  /** Any line, through the grammar. */
  #plainLine(): void {
    const start = this.#at;
    const newline = this.#bytes.indexOf(NEWLINE, start);
    const end = newline > start && this.#bytes[newline - 1] === 0x0d ? newline - 1 : newline;
    if (newline - start > MAX_LINE_BYTES) {
      this.#damage(`a line of more than ${MAX_LINE_BYTES} bytes`, start, newline, newline + 1);
      return;
    }
    this.#at = newline + 1;
    if (end === start) return;
    const line = this.#bytes.toString('latin1', start, end);
    const { stamp, rest } = splitPrefix(line);
    this.#setStamp(stamp);
    if (rest === undefined) {
      this.#damage('a time stamp that is not whole', start, end, newline + 1);
      return;
    }
    const parsed = parseBody(rest);
    if (parsed.kind === 'failed') {
      if (!this.#pushFailure(parsed)) this.#damage('one target too many', start, end, newline + 1);
    } else if (parsed.kind === 'access') {
      const target = this.#table.intern(parsed.target);
      if (target < 0) this.#damage('one target too many', start, end, newline + 1);
      else this.#push(parsed, target);
    } else if (parsed.kind === 'damaged') {
      this.#damage(parsed.reason, start, end, newline + 1);
    } else if (parsed.kind === 'other') {
      this.#countOther(parsed.name);
      this.#options.onOtherLine?.(
        Uint8Array.prototype.slice.call(this.#bytes, start, newline + 1),
        parsed.name,
      );
    } else {
      this.#event = { ...parsed, timeNs: this.#timeNs };
    }
    if (parsed.kind === 'access' || !('name' in parsed))
      this.#forwardUserLog(rest, start, newline + 1);
  }

  /** Where in the buffer the first line from elsewhere stands: at the first that is later. */
  #interjectedAt(): number {
    const { timeNs } = this.#interjected[0]!;
    if (Number.isNaN(timeNs)) return this.#at;
    for (let at = this.#at; at < this.#linesEnd; at = this.#bytes.indexOf(NEWLINE, at) + 1) {
      const { stamp } = splitPrefix(this.#bytes.toString('latin1', at, at + 48));
      if (stamp === undefined || this.#startSec === undefined) continue;
      const lineNs = this.#sessionNs(stamp.sec, this.#startSec) + stamp.usec * 1000;
      if (lineNs > timeNs) return at;
    }
    return this.#linesEnd;
  }

  #takeInterjected(): void {
    const line = this.#interjected.shift();
    if (line === undefined) return;
    this.#due = Math.max(0, this.#due - 1);
    const { stamp, rest } = splitPrefix(line.text);
    const parsed = parseBody(rest ?? '');
    if (parsed.kind !== 'failed') return;
    this.#setStamp(stamp);
    this.#pushFailure(parsed);
  }

  /** False for one target too many. A read that failed is in no other line. */
  #pushFailure(failure: Extract<ParsedLine, { kind: 'failed' }>): boolean {
    if (!failure.write) {
      const target = this.#table.intern(failure.target);
      if (target < 0) return false;
      this.#push({ ...failure, kind: 'access', cpu: NO_CPU }, target);
    }
    this.#event = { ...failure, timeNs: this.#timeNs };
    return true;
  }

  #forwardUserLog(body: string, start: number, end: number): void {
    if (this.#options.alsoOther === undefined || this.#options.onOtherLine === undefined) return;
    const space = body.indexOf(' ');
    const name = space < 0 ? body : body.slice(0, space);
    if (this.#options.alsoOther(name))
      this.#options.onOtherLine(Uint8Array.prototype.slice.call(this.#bytes, start, end), name);
  }

  #countOther(name: string): void {
    const known = this.otherLines.get(name);
    if (known !== undefined) this.otherLines.set(name, known + 1);
    else if (this.otherLines.size < MAX_OTHER_NAMES) this.otherLines.set(name, 1);
    else this.otherLines.set(MANY_OTHER_NAMES, (this.otherLines.get(MANY_OTHER_NAMES) ?? 0) + 1);
  }

  #setStamp(stamp: Stamp | undefined): void {
    if (stamp === undefined) {
      this.unstampedLines++;
      this.#timeNs = NaN;
      this.#thread = 0;
      return;
    }
    this.stampedLines++;
    if (this.#startSec === undefined) {
      this.#startSec = stamp.sec;
      this.#startNs = stamp.usec * 1000;
    }
    this.#thread = stamp.thread;
    this.#wholeSecondNs = this.#sessionNs(stamp.sec, this.#startSec);
    this.#timeNs = this.#wholeSecondNs + stamp.usec * 1000;
  }

  /** NaN for a second so far off (over 100 days) that its nanoseconds would not be exact. */
  #sessionNs(sec: number, startSec: number): number {
    const ns = (sec - startSec) * 1e9 - this.#startNs;
    return Math.abs(ns) < Number.MAX_SAFE_INTEGER - 1e9 ? ns : NaN;
  }

  #push(access: ParsedAccess, target: number): void {
    const batch = this.#batch;
    const row = batch.length++;
    batch.timeNs[row] = this.#timeNs;
    batch.thread[row] = this.#thread;
    batch.op[row] = access.write ? 1 : 0;
    batch.width[row] = access.width;
    batch.target[row] = target;
    batch.offset[row] = access.address;
    batch.valueLo[row] = access.valueLo;
    batch.valueHi[row] = access.valueHi;
    batch.cpu[row] = access.cpu;
  }

  // PERF: from here on, the fast path. None of it needs to look at the end of the buffer: a newline
  // stands at linesEnd - 1 at the latest, nothing steps over one, and a template of
  // MAX_TEMPLATE_BYTES that begins before it ends within the slack. No line that it takes is longer
  // than MAX_LINE_BYTES: all that a line repeats is counted.

  /** Reads lines into the batch, up to the first that needs the plain way. */
  #fastLines(linesEnd: number): void {
    const bytes = this.#bytes;
    const view = this.#view;
    const batch = this.#batch;
    const { capacity, timeNs, thread } = batch;
    let stamped = 0;
    let row = batch.length;
    const firstRow = row;
    let at = this.#at;
    while (at < linesEnd && row < capacity) {
      let body = at;
      if (isDigit(bytes[at]!)) {
        // The thread and the whole second are mostly those of the line before.
        if (!matches(view, at, this.#stampBytes) && !this.#rememberStamp(at)) break;
        body += this.#stampBytes.length + 6;
        const usec = sixDigits(view, body - 6);
        if (usec < 0) break;
        if (this.#stampIso) {
          if (bytes[body++] !== 0x5a || bytes[body++] !== 0x20) break;
        } else if (bytes[body++] !== 0x3a) {
          break;
        }
        thread[row] = this.#stampThread;
        timeNs[row] = this.#wholeSecondNs + usec * 1000;
      } else {
        thread[row] = 0;
        timeNs[row] = NaN;
      }
      const first = bytes[body];
      let after = -1;
      if (first === 0x76 /* v */) after = this.#plainVfio ? -1 : this.#vfioLine(body, row);
      else if (first === 0x6d /* m */)
        after = this.#plainOps ? -1 : this.#memoryRegionLine(body, row);
      if (after < 0) break;
      if (body > at) stamped++;
      at = after;
      row++;
    }
    if (row > firstRow) {
      this.#timeNs = timeNs[row - 1]!;
      this.#thread = thread[row - 1]!;
    }
    this.stampedLines += stamped;
    this.unstampedLines += row - firstRow - stamped;
    this.#at = at;
    batch.length = row;
  }

  /** `vfio_region_*` into a row; returns the index of the next line, or -1. */
  #vfioLine(body: number, row: number): number {
    const bytes = this.#bytes;
    const view = this.#view;
    const write = bytes[body + VFIO_OP] === 0x77; /* w */
    const memos = write ? this.#table.vfioWrites : this.#table.vfioReads;
    let memo: Template | undefined;
    for (let m = 0; m < memos.length; m++) {
      if (!matches(view, body, memos[m]!)) continue;
      memo = memos[m]!;
      break;
    }
    if (memo === undefined) return -1;
    let at = this.#hex(body + memo.length);
    if (at < 0 || this.#hi >>> 0 > 0x1fffff) return -1;
    const address = this.#hi * 0x1_0000_0000 + (this.#lo >>> 0);
    let width;
    if (write) {
      if (view.getInt32(at, true) !== WRITE_VALUE) return -1;
      if ((at = this.#hex(at + 4)) < 0) return -1;
      if (bytes[at] !== 0x2c || bytes[at + 1] !== 0x20) return -1;
      width = bytes[at + 2]! - 0x30;
      if (bytes[at + 3] !== 0x29 || bytes[at + 4] !== NEWLINE) return -1;
      at += 5;
    } else {
      if (bytes[at] !== 0x2c || bytes[at + 1] !== 0x20) return -1;
      width = bytes[at + 2]! - 0x30;
      if (view.getInt32(at + 3, true) !== READ_WIDTH_END) return -1;
      if (view.getUint16(at + 7, true) !== ZERO_X) return -1;
      if ((at = this.#hex(at + 9)) < 0 || bytes[at] !== NEWLINE) return -1;
      at++;
    }
    const op = write ? 1 : 0;
    return this.#put(row, op, width, memo.target, address, NO_CPU) ? at : -1;
  }

  /** `memory_region_ops_*` into a row; returns the index of the next line, or -1. */
  #memoryRegionLine(body: number, row: number): number {
    const bytes = this.#bytes;
    const view = this.#view;
    const write = bytes[body + OPS_OP] === 0x77; /* w */
    const head = write ? OPS_WRITE : OPS_READ;
    if (!matches(view, body, head)) return -1;
    let at = body + head.length;
    let cpu = bytes[at++]! - 0x30;
    if (cpu < 0 || cpu > 9) {
      if (cpu !== -3 /* '-' */ || bytes[at++] !== 0x31) return -1;
      cpu = NO_CPU;
    } else {
      for (let more = 0; more < 3 && isDigit(bytes[at]!); more++, at++) {
        cpu = cpu * 10 + bytes[at]! - 0x30;
      }
    }
    let memo = this.#table.last;
    if (memo !== undefined && matches(view, at, memo.pointer)) at += memo.pointer.length;
    else {
      if (view.getInt32(at, true) !== MR || view.getUint16(at + 4, true) !== ZERO_X) return -1;
      if ((at = this.#hex(at + 6)) < 0) return -1;
      memo = this.#table.findMemoryRegion(this.#lo >>> 0, this.#hi >>> 0);
      if (memo === undefined || !matches(view, at, ADDR)) return -1;
      at += ADDR.length;
    }
    if ((at = this.#hex(at)) < 0 || this.#hi >>> 0 > 0x1fffff) return -1;
    const address = this.#hi * 0x1_0000_0000 + (this.#lo >>> 0);
    if (!matches(view, at, VALUE)) return -1;
    if ((at = this.#hex(at + VALUE.length)) < 0) return -1;
    if (view.getInt32(at, true) !== SIZE || view.getInt32(at + 2, true) !== SIZE_END) return -1;
    at += 6;
    const width = bytes[at]! - 0x30;
    if (!matches(view, at + 1, memo.name)) return -1;
    at += 1 + memo.name.length;
    return this.#put(row, write ? 1 : 0, width, memo.target, address, cpu) ? at : -1;
  }

  /** The rest of a row; the value is in #lo and #hi. False for a width that no access has. */
  #put(
    row: number,
    op: number,
    width: number,
    target: number,
    address: number,
    cpu: number,
  ): boolean {
    let lo = this.#lo;
    let hi = 0;
    // Masked to the width.
    if (width === 8) hi = this.#hi;
    else if (width === 2) lo &= 0xffff;
    else if (width === 1) lo &= 0xff;
    else if (width !== 4) return false;
    const batch = this.#batch;
    batch.op[row] = op;
    batch.width[row] = width;
    batch.target[row] = target;
    batch.offset[row] = address;
    batch.cpu[row] = cpu;
    batch.valueLo[row] = lo;
    batch.valueHi[row] = hi;
    return true;
  }

  /** Reads 1 to 16 hex digits into #lo and #hi: signed, because such fields need no allocation. */
  #hex(start: number): number {
    const bytes = this.#bytes;
    let at = start;
    let lo = 0;
    for (let digit; (digit = HEX_DIGIT[bytes[at]!]!) < 16; at++) lo = (lo << 4) | digit;
    const digits = at - start;
    this.#lo = lo;
    this.#hi = 0;
    if (digits <= 8) return digits === 0 ? -1 : at;
    if (digits > 16) return -1;
    // The shifts have left the last eight digits; those before them are the high half.
    let hi = 0;
    for (let i = start; i < at - 8; i++) hi = (hi << 4) | HEX_DIGIT[bytes[i]!]!;
    this.#hi = hi;
    return at;
  }

  /** A new second or another thread: reads the prefix in the plain way, and keeps its bytes. */
  #rememberStamp(start: number): boolean {
    const text = this.#bytes.toString('latin1', start, start + 40);
    const { stamp } = splitPrefix(text);
    const dot = text.indexOf('.');
    const iso = text.charCodeAt(4) === 0x2d;
    if (stamp === undefined || dot < 7 || dot >= 31 || (iso && dot !== 19)) {
      this.#stampBytes = NO_STAMP;
      return false;
    }
    if (this.#startSec === undefined) {
      this.#startSec = stamp.sec;
      this.#startNs = stamp.usec * 1000;
    }
    this.#wholeSecondNs = this.#sessionNs(stamp.sec, this.#startSec);
    this.#stampThread = stamp.thread;
    this.#stampIso = iso;
    this.#stampBytes = template(text.slice(0, dot + 1));
    return true;
  }
}

/** Stands for no stamp: no line begins like this. */
const NO_STAMP = template('no stamp');

/** Four bytes as `getInt32` reads them. */
function word(text: string): number {
  return Buffer.from(text, 'latin1').readInt32LE(0);
}

/** PERF: six decimal digits as a number, or -1: two and four of them at a time. */
function sixDigits(view: DataView, at: number): number {
  const two = view.getUint16(at, true) ^ 0x3030;
  const four = view.getInt32(at + 2, true) ^ 0x30303030;
  // A byte that was no digit has something in its high half, or gets it from adding 6.
  if ((((two + 0x0606) | two | (four + 0x06060606) | four) & 0xf0f0f0f0) !== 0) return -1;
  // Each digit times ten and its neighbour; then the two pairs are in bytes 0 and 2.
  const pairs = (Math.imul(four, 10) + (four >>> 8)) & 0x00ff00ff;
  return (two & 0xff) * 100_000 + (two >>> 8) * 10_000 + (pairs & 0xff) * 100 + (pairs >>> 16);
}

/** Value of a lower-case hex digit by its byte; 255 for all others. */
const HEX_DIGIT = new Uint8Array(256).fill(255);
for (let i = 0; i < 16; i++) HEX_DIGIT[i.toString(16).charCodeAt(0)] = i;

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}
