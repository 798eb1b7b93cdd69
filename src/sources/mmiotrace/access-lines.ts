import { type AccessBatch, NO_CPU, Op, Space } from '../../model/access-batch.ts';
import type { GuestMemory, IoremapWindow } from './guest-memory.ts';

const LF = 0x0a;
const CR = 0x0d;
const BLANK = 0x20;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const LETTER_R = 0x52;
const LETTER_W = 0x57;
const LETTER_X = 0x78;

const NOT_HEX = 255;
/** By byte: the value of a hexadecimal digit of either case. */
const HEX_VALUE = new Uint8Array(256).fill(NOT_HEX);
for (let value = 0; value < 16; value++) {
  HEX_VALUE[value.toString(16).charCodeAt(0)] = value;
  HEX_VALUE[value.toString(16).toUpperCase().charCodeAt(0)] = value;
}

const REFUSED = -1;
const MAX_SECONDS = 0xffffffff;
const TWO_POW_32 = 4294967296;
/** An address has at most 53 bits, 21 of them in its high half. */
const MAX_ADDRESS_HI = 0x1fffff;

/**
 * The fast way for `R` and `W` lines: bytes to a batch's columns in one pass, nothing allocated.
 * Takes exactly the lines of `ACCESS` in line-grammar.ts.
 */
export class AccessLines {
  /** Second of the kernel's clock that is session time 0; no line is taken while it is -1. */
  baseSec = -1;
  /** Session time of the last line, whatever it was; of others than accesses the reader sets it. */
  timeNs = 0;
  reads = 0;
  writes = 0;

  readonly #batch: AccessBatch;
  readonly #memory: GuestMemory;
  /** The mapping of the line before: most lines have the same. */
  #mapId = -1;
  #window: IoremapWindow;
  /** Low and high half of the hexadecimal number read last. */
  #lo = 0;
  #hi = 0;

  constructor(batch: AccessBatch, memory: GuestMemory) {
    this.#batch = batch;
    this.#memory = memory;
    this.#window = memory.window(0);
  }

  /** To be called when a MAP has given a mapid a meaning. */
  forgetMapping(): void {
    this.#mapId = -1;
  }

  /**
   * Takes lines from `start` until the batch is full, or a line is not one for it, or `end`.
   * There must be a LF at `end - 1`. Returns where it stopped: at the beginning of a line, or `end`.
   */
  run(bytes: Uint8Array, start: number, end: number): number {
    const batch = this.#batch;
    if (this.baseSec < 0) return start;
    let at = start;
    while (at < end && batch.length < batch.capacity) {
      const next = this.#take(bytes, at);
      if (next < 0) return at;
      at = next;
    }
    return at;
  }

  /**
   * One line into row `batch.length`. Returns where the next begins, or `REFUSED`. Never reads
   * beyond a LF: no field takes one.
   */
  #take(bytes: Uint8Array, start: number): number {
    const letter = bytes[start];
    if (letter !== LETTER_R && letter !== LETTER_W) return REFUSED;
    if (bytes[start + 1] !== BLANK) return REFUSED;
    const width = bytes[start + 2]! - ZERO;
    if (width !== 4 && width !== 1 && width !== 2 && width !== 8) return REFUSED;
    if (bytes[start + 3] !== BLANK) return REFUSED;

    let at = start + 4;
    let digit = 0;
    let sec = 0;
    let from = at;
    while ((digit = bytes[at]! - ZERO) >= 0 && digit <= 9) {
      sec = sec * 10 + digit;
      at++;
    }
    if (at === from || at - from > 10 || sec > MAX_SECONDS || bytes[at] !== POINT) return REFUSED;
    from = ++at;
    let usec = 0;
    while ((digit = bytes[at]! - ZERO) >= 0 && digit <= 9) {
      // PERF: `| 0` keeps this an integer; six digits fit.
      usec = (usec * 10 + digit) | 0;
      at++;
    }
    if (at - from !== 6 || bytes[at] !== BLANK) return REFUSED;

    const negative = bytes[++at] === MINUS;
    if (negative) at++;
    from = at;
    let id = 0;
    while ((digit = bytes[at]! - ZERO) >= 0 && digit <= 9) {
      id = id * 10 + digit;
      at++;
    }
    if (at === from || at - from > 10 || bytes[at] !== BLANK) return REFUSED;
    if (id > 0x7fffffff && !(negative && id === 0x80000000)) return REFUSED;
    const mapId = negative ? -id >>> 0 : id;

    at = this.#hex(bytes, at + 1);
    if (at < 0 || this.#hi > MAX_ADDRESS_HI || bytes[at] !== BLANK) return REFUSED;
    const address = this.#hi * TWO_POW_32 + this.#lo;
    at = this.#hex(bytes, at + 1);
    if (at < 0 || bytes[at] !== BLANK) return REFUSED;
    const valueLo = this.#lo;
    const valueHi = this.#hi;
    if (width !== 8 && (valueHi !== 0 || (width !== 4 && valueLo >>> (width * 8) !== 0))) {
      return REFUSED;
    }
    at = this.#hex(bytes, at + 1);
    if (at < 0 || bytes[at] !== BLANK) return REFUSED;
    at = afterNumberAndEnd(bytes, at + 1);
    if (at < 0) return REFUSED;

    if (mapId !== this.#mapId) {
      this.#mapId = mapId;
      this.#window = this.#memory.window(mapId);
    }
    const window = this.#window;
    const inside = address >= window.start && address < window.end;
    const region = inside ? window.region : this.#memory.everywhereId;
    if (region < 0) return REFUSED;

    const batch = this.#batch;
    const row = batch.length++;
    const timeNs = (sec - this.baseSec) * 1e9 + usec * 1000;
    this.timeNs = timeNs;
    batch.timeNs[row] = timeNs;
    batch.op[row] = letter === LETTER_R ? Op.read : Op.write;
    if (letter === LETTER_R) this.reads++;
    else this.writes++;
    batch.space[row] = Space.mmio;
    batch.width[row] = width;
    batch.region[row] = region;
    batch.mapId[row] = mapId;
    batch.offset[row] = inside ? address + window.toOffset : address;
    batch.valueLo[row] = valueLo;
    batch.valueHi[row] = valueHi;
    batch.cpu[row] = NO_CPU;
    batch.pcLo[row] = this.#lo;
    batch.pcHi[row] = this.#hi;
    return at;
  }

  /** `0x` and 1 to 16 digits into `#lo` and `#hi`. Returns the position after, or `REFUSED`. */
  #hex(bytes: Uint8Array, start: number): number {
    if (bytes[start] !== ZERO || bytes[start + 1] !== LETTER_X) return REFUSED;
    const from = start + 2;
    let at = from;
    let lo = 0;
    let hi = 0;
    let digit = HEX_VALUE[bytes[at]!]!;
    // PERF: most numbers have at most eight digits; the loop for them moves one half only.
    for (const eight = from + 8; digit !== NOT_HEX && at < eight; digit = HEX_VALUE[bytes[at]!]!) {
      lo = (lo << 4) | digit;
      at++;
    }
    for (; digit !== NOT_HEX; digit = HEX_VALUE[bytes[at]!]!) {
      hi = (hi << 4) | (lo >>> 28);
      lo = (lo << 4) | digit;
      at++;
    }
    if (at === from || at - from > 16) return REFUSED;
    this.#lo = lo >>> 0;
    this.#hi = hi >>> 0;
    return at;
  }
}

/** The last field, a decimal number that means nothing, then blanks and LF, or `REFUSED`. */
function afterNumberAndEnd(bytes: Uint8Array, start: number): number {
  let at = bytes[start] === MINUS ? start + 1 : start;
  const from = at;
  while (bytes[at]! >= ZERO && bytes[at]! <= ZERO + 9) at++;
  if (at === from || at - from > 10) return REFUSED;
  while (bytes[at] === BLANK || bytes[at] === CR) at++;
  return bytes[at] === LF ? at + 1 : REFUSED;
}
