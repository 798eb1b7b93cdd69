/** Longer lines are no lines: they are skipped, and only their beginning is kept. */
export const MAX_LINE_BYTES = 64 * 1024;
const KEPT_OF_LONG = 200;
const LF = 0x0a;

/**
 * Whole lines, each with its LF, in `bytes` from `start` to `end`; or, `tooLong`, the beginning of
 * one that was skipped. Valid until the next block is asked for.
 */
export interface LineBlock {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  /** Where in the file `start` is. */
  readonly offset: number;
  readonly tooLong: boolean;
}

/**
 * Chunks of any size into blocks of whole lines. What a chunk has of its last line is kept for the
 * next one: at most `MAX_LINE_BYTES`. A last line without LF gets one.
 */
export class LineSplitter {
  readonly #carry = new Uint8Array(MAX_LINE_BYTES + 1);
  #carried = 0;
  /** Bytes of the current line so far, kept or not. */
  #length = 0;
  /** The current line has passed the limit, and is being skipped. */
  #skipping = false;
  /** Where the current line began in the file. */
  #lineOffset = 0;

  *push(chunk: Uint8Array): Generator<LineBlock> {
    let at = 0;
    if (this.#length > 0) {
      const lf = chunk.indexOf(LF);
      this.#keep(chunk, 0, lf < 0 ? chunk.length : lf);
      if (lf < 0) return;
      at = lf + 1;
      const offset = this.#lineOffset;
      const length = this.#length + 1;
      yield this.#carriedLine();
      this.#begin(offset + length);
    }
    const end = chunk.lastIndexOf(LF) + 1;
    if (end > at) {
      yield* this.#whole(chunk, at, end);
      this.#begin(this.#lineOffset + end - at);
      at = end;
    }
    this.#keep(chunk, at, chunk.length);
  }

  /** The last line, if it had no LF. */
  *finish(): Generator<LineBlock> {
    if (this.#length > 0) yield this.#carriedLine();
  }

  #begin(offset: number): void {
    this.#lineOffset = offset;
    this.#carried = 0;
    this.#length = 0;
    this.#skipping = false;
  }

  /** A part of the current line. */
  #keep(chunk: Uint8Array, start: number, end: number): void {
    this.#length += end - start;
    this.#skipping = this.#length > MAX_LINE_BYTES;
    const room = (this.#skipping ? KEPT_OF_LONG : MAX_LINE_BYTES) - this.#carried;
    const count = Math.max(0, Math.min(room, end - start));
    this.#carry.set(chunk.subarray(start, start + count), this.#carried);
    this.#carried += count;
  }

  #carriedLine(): LineBlock {
    const offset = this.#lineOffset;
    const tooLong = this.#skipping;
    const end = tooLong ? KEPT_OF_LONG : this.#carried + 1;
    if (!tooLong) this.#carry[this.#carried] = LF;
    return { bytes: this.#carry, start: 0, end, offset, tooLong };
  }

  /** Lines that lie in one chunk, which may be too long as well. */
  *#whole(bytes: Uint8Array, start: number, end: number): Generator<LineBlock> {
    const base = this.#lineOffset - start;
    let from = start;
    // PERF: where every window of MAX_LINE_BYTES has a LF no line can be too long, and looking
    // back from the end of each window passes over few bytes only.
    for (let at = start; at < end;) {
      const within = Math.min(at + MAX_LINE_BYTES + 1, end);
      const lf = bytes.lastIndexOf(LF, within - 1);
      if (lf >= at) {
        at = lf + 1;
        continue;
      }
      if (at > from) yield { bytes, start: from, end: at, offset: base + from, tooLong: false };
      const kept = at + KEPT_OF_LONG;
      yield { bytes, start: at, end: kept, offset: base + at, tooLong: true };
      at = bytes.indexOf(LF, at) + 1;
      from = at;
    }
    if (end > from) yield { bytes, start: from, end, offset: base + from, tooLong: false };
  }
}
