import { HEADER_BYTES, decodeMessage, messageBytes, type Message } from './protocol.ts';

const FIRST_BYTES = 4096;

/**
 * Puts messages together from chunks of any size. Pulled: after each `push`, take messages with
 * `next` until it has no more, then the next chunk. So it holds no more than a message and a chunk.
 */
export class MessageReader {
  #bytes = Buffer.allocUnsafe(FIRST_BYTES);
  #start = 0;
  #end = 0;

  /** How many bytes wait for the rest of their message. */
  get heldBytes(): number {
    return this.#end - this.#start;
  }

  push(chunk: Uint8Array): void {
    const held = this.heldBytes;
    const needed = held + chunk.length;
    if (this.#end + chunk.length > this.#bytes.length) {
      const fits = needed <= this.#bytes.length;
      const to = fits ? this.#bytes : Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
      this.#bytes.copy(to, 0, this.#start, this.#end);
      this.#bytes = to;
      this.#start = 0;
      this.#end = held;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /**
   * The next message that is whole; its payload is valid until the next `push`. Throws MmioError
   * `protocol` for a header that is none; there is no going on after that.
   */
  next(): Message | undefined {
    if (this.heldBytes < HEADER_BYTES) return undefined;
    const size = messageBytes(this.#bytes.subarray(this.#start, this.#start + HEADER_BYTES));
    if (this.heldBytes < size) return undefined;
    const message = this.#bytes.subarray(this.#start, this.#start + size);
    this.#start += size;
    if (this.#start === this.#end) this.#start = this.#end = 0;
    return decodeMessage(message);
  }
}
