/** Bytes of an input: a file, a compressed file, standard input. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { MmioError, messageOf } from '../base/errors.ts';

const BLOCK_BYTES = 1024 * 1024;
const HEAD_BYTES = 64 * 1024;
/** One is being looked at, one is being read into, and two for a reader that looks back. */
const BLOCKS = 4;

export interface Input {
  /** The first bytes, decompressed; the stream has them, too. */
  readonly head: Uint8Array;
  /** A chunk is valid until the next but one is asked for. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** For one that is not read to its end. */
  readonly close: () => Promise<unknown>;
}

/** Opens `-`, a file, or a gzip'd file (told by its first bytes). Throws MmioError `not-found`. */
export async function openInput(path: string): Promise<Input> {
  const raw = path === '-' ? readStream(process.stdin) : await readFile(path);
  const first = await peek(raw);
  if (first.head[0] !== 0x1f || first.head[1] !== 0x8b) return first;
  const gunzip = Readable.from(first.chunks).pipe(createGunzip({ chunkSize: BLOCK_BYTES / 4 }));
  const unpacked = await peek(gunzipped(gunzip, path));
  const close = () => Promise.all([unpacked.close(), first.close()]);
  return { ...unpacked, close };
}

/** A file as MmioError `damaged` where the compressed data ends too early or is not gzip. */
async function* gunzipped(stream: Readable, path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* readStream(stream);
  } catch (error) {
    throw new MmioError('damaged', `${path} cannot be decompressed to its end`, {
      evidence: messageOf(error),
      hint: 'a recording that was cut off: what was read before it is written down',
      cause: error,
    });
  }
}

async function* readStream(stream: NodeJS.ReadableStream): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) yield Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk);
}

async function readFile(path: string): Promise<AsyncGenerator<Uint8Array>> {
  let file;
  try {
    file = await open(path, 'r');
    const stat = await file.stat();
    if (stat.isDirectory()) {
      await file.close();
      throw new Error('it is a folder');
    }
    if (!stat.isFile()) {
      await file.close();
      return readStream(createReadStream(path, { highWaterMark: BLOCK_BYTES }));
    }
  } catch (error) {
    throw new MmioError('not-found', `cannot read ${path}`, {
      evidence: messageOf(error),
      hint: '- is standard input',
      cause: error,
    });
  }
  return blocksOf(file);
}

/** Buffers of files that have been read: a recording in many pieces does with those of one. */
const spare: Buffer[][] = [];

/**
 * A small block first, because many files may be opened long before they are read. Then one block
 * is read ahead, into a few buffers that are used again and again.
 */
async function* blocksOf(file: Awaited<ReturnType<typeof open>>): AsyncGenerator<Uint8Array> {
  try {
    const head = Buffer.allocUnsafeSlow(HEAD_BYTES);
    const { bytesRead } = await file.read(head, 0, HEAD_BYTES, null);
    if (bytesRead === 0) return;
    yield head.subarray(0, bytesRead);

    const ring =
      spare.pop() ?? Array.from({ length: BLOCKS }, () => Buffer.allocUnsafeSlow(BLOCK_BYTES));
    const read = async (index: number) => {
      const buffer = ring[index % BLOCKS] ?? Buffer.alloc(BLOCK_BYTES);
      const got = await file.read(buffer, 0, BLOCK_BYTES, null);
      return buffer.subarray(0, got.bytesRead);
    };
    let next = read(0);
    for (let index = 1; ; index++) {
      const block = await next;
      if (block.length === 0) break;
      next = read(index);
      // Failures are met where the block is awaited.
      next.catch(() => undefined);
      yield block;
    }
    spare.push(ring);
  } finally {
    await file.close();
  }
}

/** Looks at the first chunk without taking it away. */
async function peek(chunks: AsyncGenerator<Uint8Array>): Promise<Input> {
  const close = () => chunks.return(undefined);
  const first = await chunks.next();
  if (first.done === true) return { head: new Uint8Array(0), chunks, close };
  const head = first.value;
  async function* all(): AsyncGenerator<Uint8Array> {
    yield head;
    yield* chunks;
  }
  return { head, chunks: all(), close };
}
