import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';

/** Far above the largest reply of a real QEMU (`query-qmp-schema`: well under a megabyte). */
export const MAX_LINE_BYTES = 64 * 1024 * 1024;

/** A buffer that has grown past this is given back after its line. */
const KEEP_BYTES = 1024 * 1024;

const LF = 0x0a;

/**
 * Cuts a byte stream into lines. Holds at most one unfinished line, in one buffer that doubles, so
 * that neither a line of megabytes nor one that comes byte by byte costs more than a few copies.
 */
export class LineReader {
  readonly #maxBytes: number;
  #held = Buffer.alloc(0);
  #heldBytes = 0;

  constructor(maxBytes: number = MAX_LINE_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** What has come of the line that is not finished yet. Valid until the next `push`. */
  get unfinished(): Buffer {
    return this.#held.subarray(0, this.#heldBytes);
  }

  /**
   * Yields each line that `chunk` completes, without its LF; a line is valid until the next one is
   * asked for. Throws MmioError `protocol` when a line, finished or not, passes the limit.
   */
  *push(chunk: Buffer): Generator<Buffer, void, undefined> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(LF, start);
      const piece = chunk.subarray(start, end === -1 ? chunk.length : end);
      this.#refuseLongLine(piece);
      if (end === -1) {
        this.#hold(piece);
        return;
      }
      if (this.#heldBytes === 0) {
        yield piece;
      } else {
        this.#hold(piece);
        const line = this.unfinished;
        this.#heldBytes = 0;
        yield line;
        if (this.#held.length > KEEP_BYTES) this.#held = Buffer.alloc(0);
      }
      start = end + 1;
    }
  }

  #refuseLongLine(piece: Buffer): void {
    const lengthBytes = this.#heldBytes + piece.length;
    if (lengthBytes <= this.#maxBytes) return;
    const head = this.#heldBytes > 0 ? this.unfinished : piece;
    throw new MmioError('protocol', `QMP: ${lengthBytes} bytes without the end of a line`, {
      evidence: escapeBytes(head, 200),
      hint: `a message may have at most ${this.#maxBytes} bytes; is this a QMP socket?`,
    });
  }

  #hold(piece: Buffer): void {
    const needed = this.#heldBytes + piece.length;
    if (needed > this.#held.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, 2 * this.#held.length));
      this.#held.copy(grown, 0, 0, this.#heldBytes);
      this.#held = grown;
    }
    piece.copy(this.#held, this.#heldBytes);
    this.#heldBytes = needed;
  }
}
