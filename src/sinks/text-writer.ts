import type { ByteOutput } from './output.ts';

const BUFFER_BYTES = 512 * 1024;

/**
 * Two buffers over one output: while the output has one, the other is filled. Who formats accesses
 * asks for room, writes into `bytes` from `at` on with the functions of `text-digits.ts`, and puts
 * `at` where it ended; nothing is allocated for a line.
 */
export class TextWriter {
  readonly #output: ByteOutput;
  readonly #buffers: readonly [Uint8Array, Uint8Array];
  /** For each buffer: settles when the output has done with it. Never rejects. */
  readonly #inFlight: [Promise<void> | undefined, Promise<void> | undefined];
  #current: 0 | 1 = 0;
  /** The current buffer is still with the output from the time before. */
  #behind = false;
  #failure: { readonly error: unknown } | undefined;

  /** The buffer that is being filled. Changes when `hasRoom` or `room` is called. */
  bytes: Uint8Array;
  /** How far it is filled. Equal to its length while both buffers are with the output. */
  at = 0;

  constructor(output: ByteOutput, bufferBytes: number = BUFFER_BYTES) {
    this.#output = output;
    this.#buffers = [new Uint8Array(bufferBytes), new Uint8Array(bufferBytes)];
    this.#inFlight = [undefined, undefined];
    this.bytes = this.#buffers[0];
  }

  /**
   * Makes room for `count` bytes (less than the buffer's size) if that needs no waiting. If false,
   * the output is behind or has failed: await `room()`, then ask again.
   */
  hasRoom(count: number): boolean {
    if (this.at + count <= this.bytes.length) return true;
    if (this.#failure !== undefined) return false;
    if (!this.#behind) this.#handOver();
    return this.#caughtUp();
  }

  /** Settles when a buffer is free again. Throws what the output threw. */
  async room(): Promise<void> {
    await this.#inFlight[this.#current];
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Text of any length, as UTF-8. A promise only if the output is behind. */
  text(text: string): void | Promise<void> {
    return this.#copy(Buffer.from(text, 'utf8'), 0);
  }

  /** Everything is with the output, and flushed there. Resolves to the output's length. */
  async flush(): Promise<number> {
    if (!this.#behind && this.at > 0) this.#handOver();
    await this.#inFlight[0];
    await this.#inFlight[1];
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#caughtUp();
    return this.#output.flush();
  }

  /** Flushes and closes; the output is closed even if it cannot be flushed. */
  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#output.close();
    }
  }

  #copy(source: Uint8Array, from: number): void | Promise<void> {
    let done = from;
    while (done < source.length) {
      if (!this.hasRoom(1)) return this.#copyLater(source, done);
      const count = Math.min(source.length - done, this.bytes.length - this.at);
      this.bytes.set(source.subarray(done, done + count), this.at);
      this.at += count;
      done += count;
    }
  }

  async #copyLater(source: Uint8Array, from: number): Promise<void> {
    await this.room();
    await this.#copy(source, from);
  }

  /** Gives the current buffer to the output and turns to the other, be it free or not. */
  #handOver(): void {
    const index = this.#current;
    this.#inFlight[index] = this.#write(index, this.bytes.subarray(0, this.at));
    this.#current = index === 0 ? 1 : 0;
    this.bytes = this.#buffers[this.#current];
    this.at = this.bytes.length;
    this.#behind = true;
  }

  #caughtUp(): boolean {
    if (this.#behind && this.#inFlight[this.#current] === undefined) {
      this.#behind = false;
      this.at = 0;
    }
    return !this.#behind;
  }

  async #write(index: 0 | 1, bytes: Uint8Array): Promise<void> {
    try {
      await this.#output.write(bytes);
    } catch (error) {
      // Kept for the next call: nobody may be awaiting this promise now.
      this.#failure ??= { error };
    }
    this.#inFlight[index] = undefined;
  }
}
