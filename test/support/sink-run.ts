import type { RecordingHeader } from '../../src/model/events.ts';
import type { Recording, Sink, StreamItem } from '../../src/model/stream.ts';
import type { ByteOutput } from '../../src/sinks/output.ts';
import { MemoryOutput } from './memory-output.ts';

/** A whole recording through a sink: what it wrote. */
export async function written(
  make: (output: ByteOutput) => Sink,
  header: RecordingHeader,
  items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
  output: MemoryOutput = new MemoryOutput(),
): Promise<string> {
  const sink = make(output);
  await sink.begin(header);
  for await (const item of items) await sink.write(item);
  await sink.end();
  return output.text();
}

/** A recording that was read, written again. */
export function rewritten(make: (output: ByteOutput) => Sink, recording: Recording) {
  return written(make, recording.header, recording.items());
}
