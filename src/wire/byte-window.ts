const SMALLEST_BYTES = 64 << 10;

/** A stream of chunks of any size, seen as one contiguous stretch of bytes that moves forward. */
export class ByteWindow {
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** What of the last chunk has not been copied into the window yet. */
  #rest: Uint8Array = new Uint8Array(0);
  #bytes = new Uint8Array(SMALLEST_BYTES);
  #start = 0;
  #end = 0;
  #offset = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Where in the stream the window begins. */
  get offset(): number {
    return this.#offset;
  }

  get available(): number {
    return this.#end - this.#start;
  }

  /** Waits until `wanted` bytes are in the window; false if the stream ends before that. */
  async fill(wanted: number): Promise<boolean> {
    while (this.available < wanted) {
      if (this.#rest.length === 0) {
        const next = await this.#chunks.next();
        if (next.done === true) return false;
        this.#rest = next.value;
      }
      this.#makeRoom(wanted);
      const taken = this.#rest.subarray(0, this.#bytes.length - this.#end);
      this.#bytes.set(taken, this.#end);
      this.#end += taken.length;
      this.#rest = this.#rest.subarray(taken.length);
    }
    return true;
  }

  /** The first `length` bytes of the window, which must be there; valid until the next `fill`. */
  peek(length: number): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#start + length);
  }

  skip(length: number): void {
    this.#start += length;
    this.#offset += length;
  }

  /** Lets go of the stream. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  #makeRoom(wanted: number): void {
    if (this.#start > 0) {
      this.#bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    if (this.#bytes.length >= wanted) return;
    const larger = new Uint8Array(Math.max(wanted, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.#end));
    this.#bytes = larger;
  }
}
