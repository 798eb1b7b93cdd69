import { isBatch } from '../../src/model/stream.ts';
import { openCapture } from '../../src/sources/capture-file.ts';
import { openInput } from '../../src/sources/input.ts';

export interface CaptureSpan {
  /** Times of the first and the last access, in ns. */
  readonly first: number;
  readonly last: number;
  readonly accesses: number;
}

export async function spanOf(path: string): Promise<CaptureSpan> {
  const recording = await openCapture((await openInput(path)).chunks);
  let first: number | undefined;
  let last = 0;
  let accesses = 0;
  for await (const item of recording.items()) {
    if (!isBatch(item) || item.length === 0) continue;
    first ??= item.timeNs[0] ?? 0;
    last = item.timeNs[item.length - 1] ?? 0;
    accesses += item.length;
  }
  return { first: first ?? 0, last, accesses };
}
