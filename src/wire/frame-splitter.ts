import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import { crc32c } from './crc32c.ts';
import { FRAME_HEADER_BYTES, readU32 } from './frame.ts';

const EVIDENCE_BYTES = 16;
const EVIDENCE_CHARS = 80;

/**
 * Takes the frames of a connection apart, in chunks of any size. Unlike in a file nothing is stepped
 * over: after a frame that is not right the connection is of no use. Holds as many bytes as came of
 * one frame, however long it claims to be.
 */
export class FrameSplitter {
  /** A longer payload is refused as soon as its length is known. */
  maxPayloadBytes: number;
  #chunks: Uint8Array[] = [];
  #available = 0;
  /** With fewer bytes nothing more can be said. */
  #needed = FRAME_HEADER_BYTES;

  constructor(maxPayloadBytes: number) {
    this.maxPayloadBytes = maxPayloadBytes;
  }

  /** Bytes of a frame that is not whole yet. */
  get pendingBytes(): number {
    return this.#available;
  }

  /**
   * The payloads that this chunk completes, one at a time, so that `maxPayloadBytes` may be changed
   * between two. They are parts of the chunk, where they lay in one. Throws MmioError `protocol`.
   */
  *feed(chunk: Uint8Array): Generator<Uint8Array, void, undefined> {
    this.#chunks.push(chunk);
    this.#available += chunk.length;
    if (this.#available < this.#needed) return;
    const bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    let at = 0;
    for (;;) {
      this.#needed = FRAME_HEADER_BYTES;
      if (bytes.length - at < this.#needed) break;
      const payloadBytes = readU32(bytes, at);
      if (payloadBytes === 0 || payloadBytes > this.maxPayloadBytes) {
        throw new MmioError('protocol', `a frame cannot be ${payloadBytes} bytes long here`, {
          evidence: escapeBytes(bytes.subarray(at, at + EVIDENCE_BYTES), EVIDENCE_CHARS),
        });
      }
      this.#needed = FRAME_HEADER_BYTES + payloadBytes;
      if (bytes.length - at < this.#needed) break;
      const start = at + FRAME_HEADER_BYTES;
      const end = start + payloadBytes;
      if (crc32c(bytes, start, end) !== readU32(bytes, at + 4)) {
        throw new MmioError('protocol', `a frame of ${payloadBytes} bytes fails its checksum`, {
          evidence: escapeBytes(bytes.subarray(at, at + EVIDENCE_BYTES), EVIDENCE_CHARS),
        });
      }
      at = end;
      yield bytes.subarray(start, end);
    }
    const rest = bytes.subarray(at);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#available = rest.length;
  }
}
