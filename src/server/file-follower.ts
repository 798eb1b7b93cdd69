/** The bytes of a file that may still grow. */
import { open, stat, type FileHandle } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError, messageOf } from '../base/errors.ts';

const BLOCK_BYTES = 1 << 20;
const POLL_MS = 50;
/** So much of what was read last is compared with the file before it is read on. */
const TAIL_BYTES = 64;

export class FileFollower {
  readonly path: string;
  /** How much has been read, and how long the file was when that was last looked at. */
  position = 0;
  length = 0;
  /** All that was there has been read. */
  atEnd = false;
  readonly #file: FileHandle;
  #tail = Buffer.alloc(0);
  #complete = false;

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  /** Throws MmioError `not-found`. */
  static async open(path: string): Promise<FileFollower> {
    try {
      return new FileFollower(path, await open(path, 'r'));
    } catch (error) {
      const evidence = messageOf(error);
      throw new MmioError('not-found', `cannot read ${path}`, { evidence, cause: error });
    }
  }

  /** The recording has ended: nothing is to be waited for at the end of the file. */
  complete(): void {
    this.#complete = true;
  }

  /**
   * Chunks, valid until the next is asked for. At the end of the file waits for more. Throws
   * MmioError `closed` if the file is not any more what it was: replaced, or cut and written again.
   */
  async *chunks(signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    let checked = true;
    while (!signal.aborted) {
      if (!checked) await this.#check();
      const { bytesRead } = await this.#file.read(buffer, 0, BLOCK_BYTES, this.position);
      if (bytesRead > 0) {
        this.position += bytesRead;
        this.length = Math.max(this.length, this.position);
        const chunk = buffer.subarray(0, bytesRead);
        this.#tail = Buffer.from(chunk.subarray(-TAIL_BYTES));
        checked = bytesRead === BLOCK_BYTES;
        yield chunk;
        continue;
      }
      this.atEnd = true;
      if (this.#complete) return;
      checked = false;
      await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** A stretch of what has been read. */
  async read(from: number, to: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(to - from);
    const { bytesRead } = await this.#file.read(buffer, 0, to - from, from);
    if (bytesRead < to - from) throw replaced(this.path, `it ends at byte ${from + bytesRead}`);
    return buffer;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #check(): Promise<void> {
    const [now, named] = await Promise.all([
      this.#file.stat(),
      stat(this.path).catch(() => undefined),
    ]);
    this.length = now.size;
    if (named !== undefined && (named.ino !== now.ino || named.dev !== now.dev)) {
      throw replaced(this.path, 'another file has its name now');
    }
    if (now.size < this.position) {
      throw replaced(this.path, `${now.size} bytes are left of ${this.position} that were read`);
    }
    const tail = Buffer.alloc(this.#tail.length);
    await this.#file.read(tail, 0, tail.length, this.position - tail.length);
    if (!tail.equals(this.#tail)) throw replaced(this.path, `byte ${this.position} was rewritten`);
  }
}

function replaced(path: string, evidence: string): MmioError {
  return new MmioError('closed', `${path} is another file than before`, { evidence });
}
