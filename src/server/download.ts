/** A recording, or a span of it, in any of our formats: the bytes that `convert` writes. */
import { createReadStream } from 'node:fs';
import type { Span } from '../analysis/span.ts';
import { SpanCut } from '../analysis/span-cut.ts';
import { openSink, type OutputFormat } from '../sinks/index.ts';
import type { ByteOutput } from '../sinks/output.ts';
import { openCapture } from '../sources/capture-file.ts';

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
    const cut = span && new SpanCut(span);
    for await (const item of recording.items()) {
      const kept = cut === undefined ? item : cut.take(item);
      if (kept !== undefined) await sink.write(kept);
    }
  } finally {
    stream.destroy();
    await sink.end();
  }
}
