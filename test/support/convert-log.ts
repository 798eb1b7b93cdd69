import type { BarBase } from '../../src/attribution/devices.ts';
import { openQemuLog } from '../../src/reading/qemu-log.ts';
import type { RecordingEvent } from '../../src/model/events.ts';
import { isBatch, type Recording } from '../../src/model/stream.ts';
import { MmiotraceSink } from '../../src/sinks/mmiotrace.ts';
import { QemuLogDecoder } from '../../src/sources/qemu-log/decoder.ts';
import { MemoryOutput } from './memory-output.ts';

export interface LogOptions {
  readonly device?: readonly string[];
  readonly barBase?: readonly BarBase[];
}

function open(log: string, options: LogOptions): Promise<Recording> {
  const decoder = new QemuLogDecoder();
  return openQemuLog(decoder, decoder.decode(once(log)), {
    selection: options.device ?? [],
    barBases: options.barBase ?? [],
  });
}

async function* once(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text, 'latin1');
}

/** Lines of a QEMU log, each 1 µs after the one before, as the thread prefix of QEMU 7.2 has it. */
export function stamped(lines: readonly string[]): string {
  return lines.map((line, us) => `77@1795392285.${String(us).padStart(6, '0')}:${line}\n`).join('');
}

/** A QEMU log as mmiotrace text, line by line, less what stands at the head and the end of each. */
export async function textOf(log: string, options: LogOptions = {}): Promise<string[]> {
  const recording = await open(log, options);
  const output = new MemoryOutput();
  const sink = new MmiotraceSink(output);
  await sink.begin(recording.header);
  for await (const item of recording.items()) await sink.write(item);
  await sink.end();
  const ofEveryRecording = /^VERSION|mmiobridge: (session|coverage|end) /;
  return output
    .text()
    .split('\n')
    .filter((line) => line !== '' && !ofEveryRecording.test(line));
}

/** The events of a recording of a QEMU log. */
export async function eventsOf(log: string, options: LogOptions = {}): Promise<RecordingEvent[]> {
  const recording = await open(log, options);
  const events: RecordingEvent[] = [];
  for await (const item of recording.items()) if (!isBatch(item)) events.push(item);
  return events;
}
