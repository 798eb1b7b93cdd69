/**
 * The spool: the segment files on tmpfs into which QEMU logs. QEMU appends to the newest, we read
 * the oldest that is not yet read to its end, and delete what the outputs have safely.
 */
import { statSync, statfsSync } from 'node:fs';
import { open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { log } from '../../base/log.ts';
import { makeFolders } from '../../base/make-folders.ts';
import type { SourcePosition } from '../../model/position.ts';

export interface SpoolRead {
  readonly segment: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export function segmentPath(dir: string, segment: number): string {
  return join(dir, String(segment).padStart(6, '0'));
}

/** Whether a path, or a name, is that of a segment. */
export function isSegment(path: string): boolean {
  return /(^|\/)\d{6}$/.test(path);
}

export class Spool {
  readonly dir: string;
  /** The newest segment: QEMU logs into it, or is about to. */
  #newest: number;
  #oldest: number;
  #segment: number;
  #offset: number;
  #file: FileHandle | undefined;
  readonly #buffer = Buffer.allocUnsafe(1024 * 1024);

  private constructor(dir: string, oldest: number, newest: number, position: SourcePosition) {
    this.dir = dir;
    this.#oldest = oldest;
    this.#newest = newest;
    this.#segment = position.segment;
    this.#offset = position.offset;
  }

  static async create(dir: string): Promise<Spool> {
    await makeFolders(dir, 0o700);
    return new Spool(dir, 1, 1, { segment: 1, offset: 0 });
  }

  /** A spool that another process has begun to read; goes on at `position`. */
  static async reopen(dir: string, position: SourcePosition): Promise<Spool> {
    const segments = (await readdir(dir)).filter(isSegment).map(Number);
    const newest = Math.max(position.segment, ...segments);
    return new Spool(dir, Math.min(position.segment, ...segments), newest, position);
  }

  get newestSegment(): number {
    return this.#newest;
  }

  /** Path of the segment that QEMU is to log into. */
  get currentPath(): string {
    return segmentPath(this.dir, this.#newest);
  }

  /** Path of the segment that is being read. */
  get readingPath(): string {
    return segmentPath(this.dir, this.#segment);
  }

  get position(): SourcePosition {
    return { segment: this.#segment, offset: this.#offset };
  }

  /** True while there are older segments than the one that QEMU logs into. */
  get behind(): boolean {
    return this.#segment < this.#newest;
  }

  /** Where the next byte that QEMU writes will be. */
  async end(): Promise<SourcePosition> {
    return { segment: this.#newest, offset: sizeOf(this.currentPath) };
  }

  /** Bytes on tmpfs. */
  async usedBytes(): Promise<number> {
    let bytes = 0;
    for (let segment = this.#oldest; segment <= this.#newest; segment++) {
      bytes += sizeOf(segmentPath(this.dir, segment));
    }
    return bytes;
  }

  /** Bytes that the file system of the spool could still take. */
  async freeBytes(): Promise<number> {
    const { bavail, bsize } = statfsSync(this.dir);
    return bavail * bsize;
  }

  /** The next bytes, at most up to `until`; empty where there are none yet. Valid until the next call. */
  async read(until?: SourcePosition): Promise<SpoolRead> {
    const { segment, offset } = this.position;
    let want = this.#buffer.length;
    if (until !== undefined && until.segment === segment) {
      want = Math.min(want, until.offset - offset);
    }
    this.#file ??= await this.#open(segment);
    if (want <= 0 || this.#file === undefined) {
      return { segment, offset, bytes: this.#buffer.subarray(0, 0) };
    }
    const { bytesRead } = await this.#file.read(this.#buffer, 0, want, offset);
    this.#offset += bytesRead;
    return { segment, offset, bytes: this.#buffer.subarray(0, bytesRead) };
  }

  async #open(segment: number): Promise<FileHandle | undefined> {
    const path = segmentPath(this.dir, segment);
    try {
      return await open(path, 'r');
    } catch (error) {
      if (systemCodeOf(error) === 'ENOENT') return undefined;
      throw new MmioError('io', `cannot read the spool segment ${path}`, {
        evidence: messageOf(error),
        hint: 'QEMU made it as its own user: run as that user or as root, or name a --spool folder',
      });
    }
  }

  /** QEMU logs into the next segment from now on. Call after it was told so. */
  advanceWriter(): void {
    this.#newest++;
    log('spool', () => `written from now on: segment ${this.#newest}`);
  }

  /** The path of the segment after the newest. */
  get nextPath(): string {
    return segmentPath(this.dir, this.#newest + 1);
  }

  /**
   * Takes over a next segment that QEMU logs into without our knowing: it did as it was told, and
   * its answer was lost with the connection. False where there is none.
   */
  adoptNext(): boolean {
    if (sizeOf(this.nextPath) === 0) return false;
    this.#newest++;
    return true;
  }

  /** Leaves a segment that QEMU has closed and that has been read to its end. */
  async advanceReader(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
    log('spool', () => `segment ${this.#segment} has been read: ${this.#offset} bytes`);
    this.#segment++;
    this.#offset = 0;
  }

  /** Deletes the segments before the one of `position`: all of them is durable. */
  async release(position: SourcePosition): Promise<void> {
    while (this.#oldest < position.segment) {
      await rm(segmentPath(this.dir, this.#oldest), { force: true });
      this.#oldest++;
    }
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }
}

/**
 * PERF: asked of tmpfs, which answers at once. Without waiting, since under full fire the event loop
 * comes round so rarely that the guard would be told of a spool long past.
 */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
