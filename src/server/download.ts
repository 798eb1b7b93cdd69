/** A recording, or a span of it, in any of our formats: the bytes that `convert` writes. */
import { createReadStream } from 'node:fs';
import { AccessBatch, Op } from '../model/access-batch.ts';
import type { RecordingEvent } from '../model/events.ts';
import { isBatch, type Sink, type StreamItem } from '../model/stream.ts';
import { openSink, type OutputFormat } from '../sinks/index.ts';
import type { ByteOutput } from '../sinks/output.ts';
import { openCapture } from '../sources/capture-file.ts';
import { copyRow } from './copy-row.ts';

export interface Span {
  readonly fromNs: number;
  /** Exclusive. */
  readonly toNs: number;
}

/**
 * Writes the first `lengthBytes` of a capture, which must be whole frames; of a span, what
 * happened in it, with the devices and mappings from before that it needs, and counters of its own.
 */
export async function writeDownload(
  path: string,
  lengthBytes: number,
  format: OutputFormat,
  span: Span | undefined,
  output: ByteOutput,
): Promise<void> {
  const stream = createReadStream(path, {
    end: Math.max(0, lengthBytes - 1),
    highWaterMark: 1 << 20,
  });
  const sink = await openSink(format, output, {});
  try {
    const recording = await openCapture(stream);
    await sink.begin(recording.header);
    const writer = span === undefined ? undefined : new SpanWriter(sink, span);
    for await (const item of recording.items()) {
      await (writer === undefined ? sink.write(item) : writer.write(item));
    }
  } finally {
    stream.destroy();
    await sink.end();
  }
}

class SpanWriter {
  readonly #sink: Sink;
  readonly #span: Span;
  #part = new AccessBatch(1);
  #reads = 0;
  #writes = 0;
  #lost = 0;
  #lossEvents = 0;
  #damaged = 0;

  constructor(sink: Sink, span: Span) {
    this.#sink = sink;
    this.#span = span;
  }

  write(item: StreamItem): void | Promise<void> {
    if (isBatch(item)) return this.#writeBatch(item);
    switch (item.kind) {
      case 'device':
      case 'region':
      case 'map':
      case 'unmap':
        return item.timeNs < this.#span.toNs ? this.#sink.write(item) : undefined;
      case 'coverage':
        return this.#sink.write(item);
      case 'end':
        return this.#sink.write(this.#end(item));
      default:
        return this.#writeEvent(item);
    }
  }

  #writeEvent(event: RecordingEvent): void | Promise<void> {
    if (event.timeNs < this.#span.fromNs || event.timeNs >= this.#span.toNs) return;
    if (event.kind === 'damage') this.#damaged++;
    if (event.kind === 'loss') {
      this.#lossEvents++;
      this.#lost += Math.max(0, event.count);
    }
    return this.#sink.write(event);
  }

  #writeBatch(batch: AccessBatch): void | Promise<void> {
    if (this.#part.capacity < batch.length) this.#part = new AccessBatch(batch.length);
    const part = this.#part;
    part.length = 0;
    for (let row = 0; row < batch.length; row++) {
      const time = batch.timeNs[row]!;
      if (time < this.#span.fromNs || time >= this.#span.toNs) continue;
      copyRow(batch, row, part);
      if (batch.op[row] === Op.write) this.#writes++;
      else this.#reads++;
    }
    return part.length === 0 ? undefined : this.#sink.write(part);
  }

  #end(end: RecordingEvent & { kind: 'end' }): RecordingEvent {
    const counters = {
      reads: this.#reads,
      writes: this.#writes,
      lost: this.#lost,
      lossEvents: this.#lossEvents,
      damagedLines: this.#damaged,
      otherLines: {},
    };
    return { ...end, timeNs: Math.min(end.timeNs, this.#span.toNs), counters };
  }
}
