/** Any readable format to any writable one. */
import { statSync } from 'node:fs';
import { MmioError } from '../base/errors.ts';
import type { RecordingEvent } from '../model/events.ts';
import { isBatch, type Recording } from '../model/stream.ts';
import { detectFormat, type InputFormat } from '../sources/detect.ts';
import { openInput, type Input } from '../sources/input.ts';
import { QemuLogDecoder } from '../sources/qemu-log/decoder.ts';
import { openQemuLog, type LogOptions } from './qemu-log.ts';
import { OutputSet, type OutputOptions } from '../sinks/output-set.ts';

export interface ConvertOptions extends LogOptions {
  readonly from: InputFormat | undefined;
  readonly to: OutputOptions['format'];
  readonly marks: OutputOptions['marks'];
}

export interface Converted {
  readonly accesses: number;
  readonly damaged: number;
  readonly losses: number;
  /** The first damages, for a person. */
  readonly evidence: readonly string[];
}

/** A log that is shorter is read before a thread would have started. */
const THREAD_FROM_BYTES = 8 * 1024 * 1024;

const MAX_EVIDENCE = 5;
/** Events that may wait for the first access. */
const MAX_EARLY = 1000;

/** Opens inputs that are one recording: several only as pieces, in order, of one QEMU log. */
export async function openRecording(
  inputs: readonly string[],
  options: ConvertOptions,
): Promise<Recording> {
  const [first, ...rest] = await Promise.all(inputs.map(openInput));
  if (first === undefined) throw new MmioError('usage', 'what is to be converted?');
  const format = options.from ?? detectFormat(first.head);
  if (format !== 'qemu-log' && rest.length > 0) {
    throw new MmioError('usage', 'only a QEMU log can come in several pieces', {
      evidence: `${inputs[0] ?? ''} is ${format}`,
      hint: 'convert one after the other',
    });
  }
  switch (format) {
    case 'capture':
      return (await import('../sources/capture-file.ts')).openCapture(first.chunks);
    case 'mmiotrace':
      return (await import('../sources/mmiotrace-file.ts')).openMmiotrace(first.chunks);
    case 'qemu-log':
      return openLog(inputs, [first, ...rest], options);
  }
}

async function openLog(
  paths: readonly string[],
  inputs: readonly Input[],
  options: LogOptions,
): Promise<Recording> {
  if (fileBytes(paths) >= THREAD_FROM_BYTES) {
    for (const input of inputs) await input.close();
    const decoder = new (await import('../sources/qemu-log/threaded-decoder.ts')).ThreadedDecoder();
    return openQemuLog(decoder, decoder.decode(paths), options);
  }
  const decoder = new QemuLogDecoder();
  return openQemuLog(decoder, decoder.decode(concatenated(inputs)), options);
}

/** Together; 0 if one of them is not a file, and so can be read but once. */
function fileBytes(paths: readonly string[]): number {
  const stats = paths.map((path) => (path === '-' ? undefined : statSync(path)));
  if (!stats.every((stat) => stat?.isFile())) return 0;
  return stats.reduce((sum, stat) => sum + (stat?.size ?? 0), 0);
}

async function* concatenated(inputs: readonly Input[]): AsyncGenerator<Uint8Array> {
  for (const { chunks } of inputs) yield* chunks;
}

/** Throws MmioError; then the outputs hold what was read until then. */
export async function convert(
  inputs: readonly string[],
  outputPaths: readonly string[],
  options: ConvertOptions,
): Promise<Converted> {
  const recording = await openRecording(inputs, options);
  // Opened when there is something to write: a conversion that fails leaves what was there alone.
  let outputs: OutputSet | undefined;
  let early: RecordingEvent[] = [];
  const openOutputs = async () => {
    const opened = await OutputSet.open(outputPaths, {
      format: options.to,
      marks: options.marks,
    });
    outputs = opened;
    await opened.begin(recording.header);
    for (const event of early) await opened.write(event);
    early = [];
    return opened;
  };
  let accesses = 0;
  let damaged = 0;
  let losses = 0;
  const evidence: string[] = [];
  try {
    for await (const item of recording.items()) {
      if (isBatch(item)) accesses += item.length;
      else if (item.kind === 'loss') losses++;
      else if (item.kind === 'damage') {
        damaged++;
        const { position, reason } = item;
        // A capture's reason begins with its place.
        const what = reason.startsWith('capture, ')
          ? reason.slice('capture, '.length)
          : `byte ${position.offset}: ${reason}`;
        const text = `${what}: ${item.evidence}`;
        if (evidence.length < MAX_EVIDENCE) evidence.push(text);
      }
      if (outputs === undefined && !isBatch(item) && early.length < MAX_EARLY) {
        early.push(item);
        continue;
      }
      const written = (outputs ?? (await openOutputs())).write(item);
      if (written !== undefined) await written;
    }
    if (outputs === undefined) await openOutputs();
  } finally {
    await outputs?.end();
  }
  return { accesses, damaged, losses, evidence };
}
