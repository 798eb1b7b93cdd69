import { open } from 'node:fs/promises';

/** Lines of QEMU's stderr are short; what is longer than this is cut at its front. */
const TAIL_BYTES = 16 * 1024;

/** The last `count` lines of a file that may be large; empty if it cannot be read. */
export async function lastLines(path: string, count: number): Promise<string> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    const tail = Buffer.alloc(Math.min(size, TAIL_BYTES));
    const { bytesRead } = await file.read(tail, 0, tail.length, size - tail.length);
    const text = tail.toString('utf8', 0, bytesRead).trimEnd();
    return text.split('\n').slice(-count).join('\n');
  } catch {
    return '';
  }
}
