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
import { NO_CPU, type SourcePosition } from '../../model/access-batch.ts';
import { parseBody, splitPrefix, type ParsedAccess, type Stamp } from './grammar.ts';
import { TargetTable, type TargetMemo } from './targets.ts';
import { TraceBatch, type TraceEvent, type TraceTarget } from './trace-batch.ts';

/** A longer line is damage. QEMU's trace lines are under 500 bytes. */
export const MAX_LINE_BYTES = 64 * 1024;
const BUFFER_BYTES = 1024 * 1024;
/** Compares and reads four bytes at a time may look past the last line. */
const SLACK_BYTES = 64;
const MAX_OTHER_NAMES = 1000;
const MANY_OTHER_NAMES = '(more names)';

const NEWLINE = 0x0a;

const VFIO_WRITE = literal('vfio_region_write  (');
const VFIO_READ = literal('vfio_region_read  (');
const OPS_WRITE = literal('memory_region_ops_write cpu ');
const OPS_READ = literal('memory_region_ops_read cpu ');
const MR = literal(' mr 0x');
const ADDR = literal(' addr 0x');
const VALUE = literal(' value 0x');
const SIZE = literal(' size ');
const NAME = literal(" name '");
const COMMA_HEX = literal(', 0x');
const READ_HEX = literal(') = 0x');

export interface DecoderOptions {
  /** Rows of a batch. */
  readonly batchCapacity?: number;
  /** Wall clock at session time 0. Without it, that of the first line with a stamp is taken. */
  readonly start?: { readonly sec: number; readonly ns: number };
  /** Is handed each line that is not one of ours, newline included, as it comes by. */
  readonly onOtherLine?: (line: Uint8Array, name: string) => void;
  /** Names of events of ours whose lines somebody else wants, too: they go to `onOtherLine`. */
  readonly alsoOther?: (name: string) => boolean;
}

export class QemuLogDecoder {
  readonly targets: readonly TraceTarget[];
  /** Lines that are not ours, by the event's name. */
  readonly otherLines = new Map<string, number>();
  damagedLines = 0;
  /** Lines with and without a time stamp. */
  stampedLines = 0;
  unstampedLines = 0;

  readonly #options: DecoderOptions;
  readonly #batch: TraceBatch;
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
  #event: TraceEvent | undefined;

  #startSec: number | undefined;
  #startNs = 0;

  // The stamp of the line that is being read, and the bytes of the last one, to be compared with.
  #timeNs = NaN;
  #thread = 0;
  #wholeSecondNs = 0;
  readonly #stampBytes = new Uint8Array(32);
  #stampLength = 0;
  #stampIso = false;
  #stampThread = 0;

  // What the scanners leave behind besides the position that they return.
  #lo = 0;
  #hi = 0;

  constructor(options: DecoderOptions = {}) {
    this.#options = options;
    this.#batch = new TraceBatch(options.batchCapacity ?? 4096);
    this.targets = this.#table.targets;
    if (options.start !== undefined) {
      this.#startSec = options.start.sec;
      this.#startNs = options.start.ns;
    }
  }

  /** Wall clock at session time 0, once it is known. */
  get start(): { readonly sec: number; readonly ns: number } | undefined {
    return this.#startSec === undefined ? undefined : { sec: this.#startSec, ns: this.#startNs };
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

  /**
   * A full or, at the end of what was fed, a partial batch; or an event; or `undefined` when more
   * bytes are needed. A batch is valid until the next call.
   */
  next(): TraceBatch | TraceEvent | undefined {
    const batch = this.#batch;
    if (this.#event !== undefined) {
      const event = this.#event;
      this.#event = undefined;
      return event;
    }
    batch.length = 0;
    for (;;) {
      while (this.#at < this.#linesEnd) {
        if (batch.length === batch.capacity) return this.#handOut(this.#at);
        const start = this.#at;
        if (!this.#fastLine()) this.#plainLine();
        if (this.#event !== undefined) return batch.length > 0 ? this.#handOut(start) : this.next();
      }
      if (!this.#refill()) break;
    }
    if (batch.length > 0) return this.#handOut(this.#at);
    return this.#event === undefined ? undefined : this.next();
  }

  /** The segment is at its end: a last line without a newline is damage, and comes from `next`. */
  finish(): void {
    const left = this.#end - this.#at;
    if (left === 0) return;
    if (this.#skippingLongLine) this.#at = this.#end;
    else this.#damage('cut off in the middle of the line', this.#at, this.#end, this.#end);
    this.#linesEnd = this.#end;
  }

  #handOut(at: number): TraceBatch {
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
    this.damagedLines++;
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
    if (parsed.kind === 'access') {
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
    if (parsed.kind === 'access' || !('name' in parsed)) this.#passOn(rest, start, newline + 1);
  }

  #passOn(body: string, start: number, end: number): void {
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

  // PERF: from here on, the fast path. Each scanner takes an index and returns the index behind
  // what it read, or -1. None needs to look at the end of the buffer: a newline stands at
  // #linesEnd - 1 at the latest, and no scanner steps over one.

  #fastLine(): boolean {
    const bytes = this.#bytes;
    const start = this.#at;
    let at = this.#fastPrefix(start);
    if (at < 0) return false;
    if (this.#options.alsoOther !== undefined) return false;
    const body = at;
    const batch = this.#batch;
    const row = batch.length;
    if (bytes[body] === 0x76 /* v */) {
      let write = 0;
      if ((at = matches(this.#view, body, VFIO_WRITE)) > 0) write = 1;
      else if ((at = matches(this.#view, body, VFIO_READ)) < 0) return false;
      const memo = this.#table.findVfio(bytes, at);
      if (memo === undefined) return false;
      at = this.#hex(at + memo.bytes.length);
      if (at < 0 || this.#hi > 0x1fffff) return false;
      const address = this.#hi * 0x1_0000_0000 + this.#lo;
      let width;
      if (write === 1) {
        if ((at = matches(this.#view, at, COMMA_HEX)) < 0) return false;
        if ((at = this.#hex(at)) < 0) return false;
        if (bytes[at] !== 0x2c || bytes[at + 1] !== 0x20) return false;
        width = bytes[at + 2]! - 0x30;
        if (bytes[at + 3] !== 0x29 || bytes[at + 4] !== NEWLINE) return false;
        at += 5;
      } else {
        if (bytes[at] !== 0x2c || bytes[at + 1] !== 0x20) return false;
        width = bytes[at + 2]! - 0x30;
        if ((at = matches(this.#view, at + 3, READ_HEX)) < 0) return false;
        if ((at = this.#hex(at)) < 0 || bytes[at] !== NEWLINE) return false;
        at++;
      }
      if (!this.#mask(width)) return false;
      batch.op[row] = write;
      batch.width[row] = width;
      batch.target[row] = memo.target;
      batch.offset[row] = address;
      batch.cpu[row] = NO_CPU;
    } else if (bytes[body] === 0x6d /* m */) {
      let write = 0;
      if ((at = matches(this.#view, body, OPS_WRITE)) > 0) write = 1;
      else if ((at = matches(this.#view, body, OPS_READ)) < 0) return false;
      let cpu = bytes[at++]! - 0x30;
      if (cpu < 0 || cpu > 9) {
        if (cpu !== -3 /* '-' */ || bytes[at++] !== 0x31) return false;
        cpu = NO_CPU;
      } else {
        for (let digit; (digit = bytes[at]! - 0x30) >= 0 && digit <= 9; at++) {
          cpu = cpu * 10 + digit;
        }
        if (cpu > 9999) return false;
      }
      if ((at = matches(this.#view, at, MR)) < 0) return false;
      if ((at = this.#hex(at)) < 0) return false;
      const memo = this.#table.findMemoryRegion(this.#lo, this.#hi);
      if (memo === undefined) return false;
      if ((at = matches(this.#view, at, ADDR)) < 0) return false;
      if ((at = this.#hex(at)) < 0 || this.#hi > 0x1fffff) return false;
      const address = this.#hi * 0x1_0000_0000 + this.#lo;
      if ((at = matches(this.#view, at, VALUE)) < 0) return false;
      if ((at = this.#hex(at)) < 0) return false;
      if ((at = matches(this.#view, at, SIZE)) < 0) return false;
      const width = bytes[at]! - 0x30;
      if ((at = matches(this.#view, at + 1, NAME)) < 0) return false;
      if (!startsWith(bytes, at, memo)) return false;
      if (!this.#mask(width)) return false;
      at += memo.bytes.length;
      batch.op[row] = write;
      batch.width[row] = width;
      batch.target[row] = memo.target;
      batch.offset[row] = address;
      batch.cpu[row] = cpu;
    } else {
      return false;
    }
    batch.timeNs[row] = this.#timeNs;
    batch.thread[row] = this.#thread;
    batch.valueLo[row] = this.#lo;
    batch.valueHi[row] = this.#hi;
    batch.length = row + 1;
    if (at - start > MAX_LINE_BYTES) {
      batch.length = row;
      return false;
    }
    if (body > start) this.stampedLines++;
    else this.unstampedLines++;
    this.#at = at;
    return true;
  }

  /** Reads 1 to 16 hex digits into #lo and #hi. */
  #hex(at: number): number {
    const bytes = this.#bytes;
    let lo = 0;
    let hi = 0;
    const start = at;
    for (;;) {
      const digit = HEX_DIGIT[bytes[at]!]!;
      if (digit > 15) break;
      hi = (hi << 4) | (lo >>> 28);
      lo = (lo << 4) | digit;
      at++;
    }
    this.#lo = lo >>> 0;
    this.#hi = hi >>> 0;
    const digits = at - start;
    return digits === 0 || digits > 16 ? -1 : at;
  }

  /** Masks #lo and #hi to a width in bytes; false for a width that no access has. */
  #mask(width: number): boolean {
    if (width === 8) return true;
    this.#hi = 0;
    if (width === 4) return true;
    if (width === 2) this.#lo &= 0xffff;
    else if (width === 1) this.#lo &= 0xff;
    else return false;
    return true;
  }

  /** Reads the prefix; the index of the event's name, or -1 where it takes the plain way. */
  #fastPrefix(start: number): number {
    const bytes = this.#bytes;
    const first = bytes[start]!;
    if (first < 0x30 || first > 0x39) {
      this.#timeNs = NaN;
      this.#thread = 0;
      return start;
    }
    // The thread and the whole second are mostly those of the line before.
    const known = this.#stampLength;
    let same = 0;
    while (same < known && bytes[start + same] === this.#stampBytes[same]) same++;
    if ((known === 0 || same < known) && !this.#rememberStamp(start)) return -1;
    let at = start + this.#stampLength;
    let usec = 0;
    for (let i = 0; i < 6; i++) {
      const digit = bytes[at++]! - 0x30;
      if (digit < 0 || digit > 9) return -1;
      usec = usec * 10 + digit;
    }
    if (this.#stampIso) {
      if (bytes[at++] !== 0x5a || bytes[at++] !== 0x20) return -1;
    } else if (bytes[at++] !== 0x3a) {
      return -1;
    }
    this.#thread = this.#stampThread;
    this.#timeNs = this.#wholeSecondNs + usec * 1000;
    return at;
  }

  /** A new second or another thread: reads the prefix in the plain way, and keeps its bytes. */
  #rememberStamp(start: number): boolean {
    const text = this.#bytes.toString('latin1', start, start + 40);
    const { stamp } = splitPrefix(text);
    const dot = text.indexOf('.');
    const iso = text.charCodeAt(4) === 0x2d;
    if (stamp === undefined || dot < 0 || dot >= 31 || (iso && dot !== 19)) {
      this.#stampLength = 0;
      return false;
    }
    if (this.#startSec === undefined) {
      this.#startSec = stamp.sec;
      this.#startNs = stamp.usec * 1000;
    }
    this.#wholeSecondNs = this.#sessionNs(stamp.sec, this.#startSec);
    this.#stampThread = stamp.thread;
    this.#stampIso = iso;
    this.#stampLength = dot + 1;
    this.#stampBytes.set(this.#bytes.subarray(start, start + dot + 1));
    return true;
  }
}

interface Literal {
  readonly length: number;
  /** Its first whole words, little-endian, and the bytes behind them. */
  readonly words: Int32Array;
  readonly rest: Uint8Array;
}

function literal(text: string): Literal {
  const bytes = Buffer.from(text, 'latin1');
  const words = new Int32Array(text.length >> 2);
  for (let i = 0; i < words.length; i++) words[i] = bytes.readInt32LE(4 * i);
  return { length: text.length, words, rest: Uint8Array.from(bytes.subarray(4 * words.length)) };
}

function matches(view: DataView, at: number, text: Literal): number {
  const { words, rest } = text;
  for (let i = 0; i < words.length; i++, at += 4) {
    if (view.getInt32(at, true) !== words[i]) return -1;
  }
  for (let i = 0; i < rest.length; i++, at++) {
    if (view.getUint8(at) !== rest[i]) return -1;
  }
  return at;
}

function startsWith(bytes: Uint8Array, at: number, memo: TargetMemo): boolean {
  const wanted = memo.bytes;
  for (let i = 0; i < wanted.length; i++) {
    if (bytes[at + i] !== wanted[i]) return false;
  }
  return true;
}

/** Value of a lower-case hex digit by its byte; 255 for all others. */
const HEX_DIGIT = new Uint8Array(256).fill(255);
for (let i = 0; i < 16; i++) HEX_DIGIT[i.toString(16).charCodeAt(0)] = i;
