/** Opens a recording of any readable format. */
import { statSync } from 'node:fs';
import { MmioError } from '../base/errors.ts';
import type { Recording } from '../model/stream.ts';
import { detectFormat, type InputFormat } from '../sources/detect.ts';
import { openInput, type Input } from '../sources/input.ts';
import { QemuLogDecoder } from '../sources/qemu-log/decoder.ts';
import { openQemuLog, type LogOptions } from './qemu-log.ts';
import { verified } from './verified.ts';

export interface OpenOptions extends LogOptions {
  /** undefined: what its first bytes say. */
  readonly from: InputFormat | undefined;
}

/** A log that is shorter is read before a thread would have started. */
const THREAD_FROM_BYTES = 8 * 1024 * 1024;

/** Opens inputs that are one recording: several only as pieces, in order, of one QEMU log. */
export async function openRecording(
  inputs: readonly string[],
  options: OpenOptions,
): Promise<Recording> {
  const opened = await Promise.all(inputs.map(openInput));
  try {
    return await openInputs(inputs, opened, options);
  } catch (error) {
    await Promise.all(opened.map((input) => input.close()));
    throw error;
  }
}

async function openInputs(
  inputs: readonly string[],
  [first, ...rest]: readonly Input[],
  options: OpenOptions,
): Promise<Recording> {
  if (first === undefined) throw new MmioError('usage', 'no input');
  const format = options.from ?? detectFormat(first.head);
  if (format !== 'qemu-log' && rest.length > 0) {
    throw new MmioError('usage', 'only a QEMU log can come in several pieces', {
      evidence: `${inputs[0] ?? ''} is ${format}`,
      hint: 'convert one after the other',
    });
  }
  switch (format) {
    case 'capture':
      return verified(await (await import('../sources/capture-file.ts')).openCapture(first.chunks));
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
