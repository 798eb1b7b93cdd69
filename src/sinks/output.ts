/**
 * Where a sink's bytes go: a file, a compressed file, standard output. What is handed to `write`
 * belongs to the output until the promise settles; calls may be made without awaiting the one
 * before, and are carried out in order.
 */
import { constants, rmSync } from 'node:fs';
import { open, realpath, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gzip as gzipCallback } from 'node:zlib';
import { MmioError, isNoRoom, messageOf, systemCodeOf } from '../base/errors.ts';

const gzip = promisify(gzipCallback);

export interface ByteOutput {
  write(bytes: Uint8Array): Promise<void>;
  /** Everything written is with the system, a compressed file can be cut here; the length so far. */
  flush(): Promise<number>;
  /** Everything flushed is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FileOutputOptions {
  /** The file appears when it is closed, in the place of one that was there; FIFOs and devices not. */
  readonly replaces?: boolean;
  /** Go on at this length of a file that is there, cutting off what is behind it. */
  readonly resumeAt?: number;
  /** The disk is full (with the system's words), and has room again (`undefined`). */
  readonly onStall?: (reason: string | undefined) => void;
  readonly signal?: AbortSignal;
}

const RETRY_MS = 500;
/** Smaller pieces than this compress badly. */
const GATHER_BYTES = 256 * 1024;

/** A file, written at positions that we keep ourselves, so that a full disk loses nothing. */
export class FileOutput implements ByteOutput {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #options: FileOutputOptions;
  readonly #regular: boolean;
  /** It was not there before us. */
  readonly #made: boolean;
  /** Where it is, until it takes the place of the file that is meant; undefined: that is it. */
  readonly #beside: string | undefined;
  readonly #target: string;
  #length: number;
  #tail: Promise<void> = Promise.resolve();
  /** Somebody has taken the file away, and what was written with it; known when it is closed. */
  removed = false;

  private constructor(path: string, found: Found, options: FileOutputOptions) {
    this.path = path;
    this.#file = found.file;
    this.#regular = found.regular;
    this.#made = found.made;
    this.#beside = found.beside;
    this.#target = found.target;
    if (found.beside !== undefined) besides.add(found.beside);
    this.#options = options;
    this.#length = options.resumeAt ?? 0;
  }

  /** Throws MmioError `io` where the file cannot be made, or has not the length to go on from. */
  static async open(path: string, options: FileOutputOptions = {}): Promise<FileOutput> {
    const output = await FileOutput.claim(path, options);
    await output.cut();
    return output;
  }

  /** Like `open`, but leaves what is in the file until `cut`. */
  static async claim(path: string, options: FileOutputOptions = {}): Promise<FileOutput> {
    let found: Found;
    try {
      const beside = options.replaces === true ? await openBeside(path) : undefined;
      found = beside ?? (await openForWriting(path, options.resumeAt === undefined));
    } catch (error) {
      throw new MmioError('io', `cannot write ${path}`, {
        evidence: messageOf(error),
        hint: 'name a file in a folder that exists and that you may write to',
        cause: error,
      });
    }
    if (options.resumeAt !== undefined) {
      const { size } = await found.file.stat();
      if (size < options.resumeAt) {
        await found.file.close();
        throw new MmioError('io', `${path} is shorter than what was written to it`, {
          evidence: `${size} bytes, of which ${options.resumeAt} were known to be written`,
          hint: 'was it replaced or cut? Go on with its copy, or convert what is left',
        });
      }
    }
    return new FileOutput(path, found, options);
  }

  /** Takes away what is behind the place where writing begins. Call before the first `write`. */
  async cut(): Promise<void> {
    if (this.#regular) await this.#file.truncate(this.#length);
  }

  /** Gives a claimed file back as it was: one that we made is deleted. */
  async giveBack(): Promise<void> {
    await this.#file.close();
    if (this.#made) await rm(this.#beside ?? this.path, { force: true });
    if (this.#beside !== undefined) besides.delete(this.#beside);
  }

  write(bytes: Uint8Array): Promise<void> {
    const position = this.#length;
    this.#length += bytes.length;
    this.#tail = this.#tail.then(() => this.#writeAt(bytes, position));
    // Who does not await this one hears of the failure from the next write or flush.
    this.#tail.catch(() => undefined);
    return this.#tail;
  }

  async #writeAt(bytes: Uint8Array, position: number): Promise<void> {
    let done = 0;
    let stalled = false;
    while (done < bytes.length) {
      try {
        // A pipe or a device has no positions.
        const at = this.#regular ? position + done : null;
        const { bytesWritten } = await this.#file.write(bytes, done, undefined, at);
        done += bytesWritten;
      } catch (error) {
        if (!isNoRoom(error) || this.#options.onStall === undefined) {
          throw new MmioError('io', `cannot write ${this.path}`, {
            evidence: messageOf(error),
            cause: error,
          });
        }
        if (!stalled) this.#options.onStall(`${this.path}: ${messageOf(error)}`);
        stalled = true;
        await this.#waitForRoom(error);
      }
    }
    if (stalled) this.#options.onStall?.(undefined);
  }

  async #waitForRoom(error: unknown): Promise<void> {
    try {
      await sleep(RETRY_MS, undefined, { signal: this.#options.signal });
    } catch {
      throw new MmioError('io', `cannot write ${this.path}`, {
        evidence: messageOf(error),
        hint: 'it was full to the end: make room',
        cause: error,
      });
    }
  }

  async flush(): Promise<number> {
    const length = this.#length;
    await this.#tail;
    return length;
  }

  async sync(): Promise<void> {
    await this.#file.datasync().catch((error: unknown) => {
      // A pipe or a device has nothing to sync.
      if (systemCodeOf(error) !== 'EINVAL') throw error;
    });
  }

  async close(): Promise<void> {
    try {
      await this.#tail;
      this.removed = this.#regular && (await this.#file.stat()).nlink === 0;
    } finally {
      await this.#file.close();
    }
    if (this.#beside === undefined) return;
    await rename(this.#beside, this.#target);
    besides.delete(this.#beside);
  }
}

/** Files that are not in their places yet: of a process that is ended they go with it. */
const besides = new Set<string>();
process.on('exit', () => {
  for (const path of besides) rmSync(path, { force: true });
});

/** Beside a file that is, or will be, a regular one; undefined where that is none, or cannot be. */
async function openBeside(path: string): Promise<Found | undefined> {
  const target = await realpath(path).catch(() => path);
  const before = await stat(target).catch(() => undefined);
  if (before !== undefined && !before.isFile()) return undefined;
  const beside = `${target}.part-${process.pid}`;
  try {
    const { O_WRONLY, O_CREAT, O_TRUNC } = constants;
    const file = await open(beside, O_WRONLY | O_CREAT | O_TRUNC, before?.mode ?? 0o666);
    return { file, made: true, regular: true, beside, target };
  } catch (error) {
    // A file that may be written in a folder that may not.
    if (before !== undefined && systemCodeOf(error) === 'EACCES') return undefined;
    throw error;
  }
}

interface Found {
  readonly file: FileHandle;
  readonly regular: boolean;
  readonly made: boolean;
  readonly beside: string | undefined;
  readonly target: string;
}

async function openForWriting(path: string, mayMake: boolean): Promise<Found> {
  let file: FileHandle;
  let made = false;
  try {
    file = await open(path, constants.O_WRONLY);
  } catch (error) {
    if (!mayMake || systemCodeOf(error) !== 'ENOENT') throw error;
    file = await open(path, constants.O_WRONLY | constants.O_CREAT);
    made = true;
  }
  return { file, made, regular: (await file.stat()).isFile(), beside: undefined, target: path };
}

/** Standard output, or any other stream that cannot be cut or gone on with. */
export class StreamOutput implements ByteOutput {
  readonly #stream: NodeJS.WritableStream;
  readonly #name: string;
  #length = 0;
  #failed: unknown;

  /** @param name of where it goes, in messages */
  constructor(stream: NodeJS.WritableStream, name: string) {
    this.#stream = stream;
    this.#name = name;
    stream.on('error', (error) => (this.#failed ??= error));
  }

  write(bytes: Uint8Array): Promise<void> {
    this.#length += bytes.length;
    const written = new Promise<void>((resolve, reject) => {
      if (this.#failed !== undefined) reject(this.#wrap(this.#failed));
      this.#stream.write(bytes, (error) => (error ? reject(this.#wrap(error)) : resolve()));
    });
    written.catch(() => undefined);
    return written;
  }

  #wrap(error: unknown): MmioError {
    const code = systemCodeOf(error);
    const closed = code === 'EPIPE' || code === 'ERR_STREAM_DESTROYED';
    return new MmioError(closed ? 'closed' : 'io', `cannot write to ${this.#name}`, {
      evidence: closed ? 'the program that reads it has ended' : messageOf(error),
      cause: error,
    });
  }

  async flush(): Promise<number> {
    await this.write(new Uint8Array(0));
    return this.#length;
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {
    await this.flush();
  }
}

/**
 * Compresses what it is given, piece by piece, as gzip members of their own (RFC 1952 allows any
 * number of them, and every gunzip reads them as one file). So the file can be cut and resumed
 * after any flush, and pieces are compressed at the same time on other threads. Small ones
 * are gathered until a flush, since every member begins to learn again.
 */
export class GzipOutput implements ByteOutput {
  readonly #inner: ByteOutput;
  #tail: Promise<void> = Promise.resolve();
  #gathered = new Uint8Array(GATHER_BYTES);
  #used = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(inner: ByteOutput) {
    this.#inner = inner;
  }

  write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    if (this.#used + bytes.length <= GATHER_BYTES) {
      this.#gathered.set(bytes, this.#used);
      this.#used += bytes.length;
      return Promise.resolve();
    }
    this.#handGathered();
    if (bytes.length < GATHER_BYTES) {
      this.#gathered.set(bytes);
      this.#used = bytes.length;
      return this.#tail;
    }
    return this.#hand(bytes);
  }

  #handGathered(): void {
    if (this.#used === 0) return;
    void this.#hand(this.#gathered.subarray(0, this.#used));
    this.#gathered = new Uint8Array(GATHER_BYTES);
    this.#used = 0;
  }

  #hand(bytes: Uint8Array): Promise<void> {
    const compressed = gzip(bytes, { level: 1 });
    this.#tail = this.#tail.then(async () => this.#inner.write(await compressed));
    this.#tail.catch((error: unknown) => (this.#failure ??= { error }));
    return this.#tail;
  }

  async flush(): Promise<number> {
    this.#handGathered();
    await this.#tail;
    return this.#inner.flush();
  }

  sync(): Promise<void> {
    return this.#inner.sync();
  }

  async close(): Promise<void> {
    try {
      this.#handGathered();
      await this.#tail;
    } finally {
      await this.#inner.close();
    }
  }
}
