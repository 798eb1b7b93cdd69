import { closeSync, openSync, readSync } from 'node:fs';

const CHUNK_BYTES = 1 << 20;

/** Seconds from the first to the last access of the hammered device, by the log's own stamps. */
export function secondsOfLog(path: string): number {
  return spanOf(path, /^\d+@(\d+\.\d+):memory_region_ops_.* name 'edu-mmio'$/);
}

export function secondsOfText(path: string): number {
  return spanOf(path, /^[RW] 4 (\d+\.\d+) /);
}

/** The accesses are nearly all of the file: looking at its ends is enough. */
function spanOf(path: string, pattern: RegExp): number {
  const file = openSync(path, 'r');
  try {
    const first = times(head(file), pattern)[0];
    const last = times(tail(file), pattern).at(-1);
    if (first === undefined || last === undefined) throw new Error(`no accesses in ${path}`);
    return last - first;
  } finally {
    closeSync(file);
  }
}

function times(text: string, pattern: RegExp): number[] {
  return text.split('\n').flatMap((line) => {
    const time = pattern.exec(line)?.[1];
    return time === undefined ? [] : [Number(time)];
  });
}

/** From the start of the file on, as far as firmware's lines can reach. */
function head(file: number): string {
  return read(file, 0, 32 * CHUNK_BYTES);
}

function tail(file: number): string {
  let size = 0;
  const probe = Buffer.alloc(CHUNK_BYTES);
  for (let count; (count = readSync(file, probe, 0, CHUNK_BYTES, size)) > 0;) size += count;
  return read(file, Math.max(0, size - CHUNK_BYTES), CHUNK_BYTES);
}

function read(file: number, from: number, count: number): string {
  const bytes = Buffer.alloc(count);
  return bytes.toString('latin1', 0, readSync(file, bytes, 0, count, from));
}
