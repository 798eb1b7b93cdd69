import type { ByteOutput } from '../../src/sinks/output.ts';

/** Keeps what a sink writes. `delayMs` makes it as slow as a bad disk. */
export class MemoryOutput implements ByteOutput {
  readonly chunks: Uint8Array[] = [];
  closed = false;
  #length = 0;
  readonly #delayMs: number;

  constructor(delayMs = 0) {
    this.#delayMs = delayMs;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#length += bytes.length;
    const copyAt = this.chunks.push(new Uint8Array(0)) - 1;
    if (this.#delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.#delayMs));
    // Copied late on purpose: a sink that reuses its buffer too early is caught here.
    this.chunks[copyAt] = bytes.slice();
  }

  async flush(): Promise<number> {
    return this.#length;
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {
    this.closed = true;
  }

  bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  text(): string {
    return this.bytes().toString('latin1');
  }
}
