import { MmioError } from '../base/errors.ts';
import type { AccessBatch } from '../model/access-batch.ts';
import type { RecordingEvent, RecordingHeader } from '../model/events.ts';
import { isBatch, type Sink, type StreamItem } from '../model/stream.ts';
import { ColumnEncoder } from '../wire/column-encoder.ts';
import {
  FILE_HEADER_BYTES,
  FRAME_HEADER_BYTES,
  sealFrame,
  writeFileHeader,
} from '../wire/frame.ts';
import { encodeEvent, encodeHeader } from '../wire/messages.ts';
import { MAX_EVENT_BYTES } from '../wire/payload.ts';
import type { ByteOutput } from './output.ts';

const BUFFER_BYTES = 256 << 10;

/** How much may wait behind a write that is under way before the caller has to wait too. */
const BEHIND_BYTES = 1 << 20;

/**
 * Writes a capture (docs/formats.md). Two buffers take turns: while the output has the one, frames
 * go into the other. Nothing waits here unless a write is under way, so that what was recorded last
 * is in the file soon; under load many frames go out with one write.
 */
export class CaptureSink implements Sink {
  readonly #output: ByteOutput;
  readonly #encoder = new ColumnEncoder();
  #front = new Uint8Array(BUFFER_BYTES);
  #back = new Uint8Array(BUFFER_BYTES);
  #used = 0;
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(output: ByteOutput) {
    this.#output = output;
  }

  begin(header: RecordingHeader): void | Promise<void> {
    this.#makeRoom(FILE_HEADER_BYTES);
    writeFileHeader(this.#front.subarray(this.#used));
    this.#used += FILE_HEADER_BYTES;
    this.#addPayload(encodeHeader(header));
    return this.#hand();
  }

  /** Goes on at the end of what the output holds, which must be the end of a frame. */
  readonly leftOut = 0;

  resume(): void {}

  /**
   * Throws, or rejects with, what the output failed with. Throws MmioError `damaged` for an access
   * that the model does not allow, `usage` for an event that no reader would take for one.
   */
  write(item: StreamItem): void | Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (isBatch(item)) this.#addBatch(item);
    else this.#addEvent(item);
    return this.#hand();
  }

  async flush(): Promise<number> {
    await this.#settle();
    return this.#output.flush();
  }

  async end(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#output.close();
    }
  }

  #addBatch(batch: AccessBatch): void {
    // A batch without accesses still tells how far the source was read.
    if (batch.length === 0 && batch.position === undefined) return;
    let row = 0;
    do {
      row = this.#encoder.take(batch, row);
      const { byteLength } = this.#encoder;
      this.#makeRoom(FRAME_HEADER_BYTES + byteLength);
      this.#encoder.writeTo(this.#front, this.#used + FRAME_HEADER_BYTES);
      this.#seal(byteLength);
    } while (row < batch.length);
  }

  #addEvent(event: RecordingEvent): void {
    const payload = encodeEvent(event);
    if (payload.length > MAX_EVENT_BYTES) {
      throw new MmioError('usage', `the ${event.kind} event is too large for a capture`, {
        evidence: `${payload.length} bytes; at most ${MAX_EVENT_BYTES} are read back`,
      });
    }
    this.#addPayload(payload);
  }

  #addPayload(payload: Uint8Array): void {
    this.#makeRoom(FRAME_HEADER_BYTES + payload.length);
    this.#front.set(payload, this.#used + FRAME_HEADER_BYTES);
    this.#seal(payload.length);
  }

  #seal(payloadBytes: number): void {
    sealFrame(this.#front, this.#used, payloadBytes);
    this.#used += FRAME_HEADER_BYTES + payloadBytes;
  }

  #makeRoom(bytes: number): void {
    const wanted = this.#used + bytes;
    if (wanted <= this.#front.length) return;
    const larger = new Uint8Array(Math.max(wanted, this.#front.length * 2));
    larger.set(this.#front.subarray(0, this.#used));
    this.#front = larger;
  }

  #hand(): void | Promise<void> {
    this.#startWrite();
    if (this.#used >= BEHIND_BYTES) return this.#catchUp();
  }

  #startWrite(): void {
    if (this.#writing !== undefined || this.#used === 0 || this.#failure !== undefined) return;
    const full = this.#front;
    const bytes = full.subarray(0, this.#used);
    this.#front = this.#back;
    this.#back = full;
    this.#used = 0;
    this.#writing = this.#output.write(bytes).then(
      () => {
        this.#writing = undefined;
        this.#startWrite();
      },
      (error: unknown) => {
        this.#writing = undefined;
        this.#failure = { error };
      },
    );
  }

  /** Waits for the write under way; the next one begins with it. */
  async #catchUp(): Promise<void> {
    await this.#writing;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #settle(): Promise<void> {
    this.#startWrite();
    while (this.#writing !== undefined) await this.#writing;
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
