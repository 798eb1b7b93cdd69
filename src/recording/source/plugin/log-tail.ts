/** Reads the lines of QEMU's log as they come, and has QEMU begin another file when one is long. */
import { open, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { systemCodeOf } from '../../../base/errors.ts';
import type { SourcePosition } from '../../../model/position.ts';
import { MAX_LINE_BYTES } from '../../../sources/qemu-log/decoder.ts';
import { splitPrefix } from '../../../sources/qemu-log/grammar.ts';
import { moveLog } from '../../spool/move-log.ts';
import type { SpoolWriter } from '../../spool/spool-writer.ts';
import type { LogLine } from './merge.ts';

const MAX_FILE_BYTES = 16 * 1024 * 1024;
const READ_BYTES = 256 * 1024;
const NEWLINE = 0x0a;

/** The part of a VM that is needed here. */
export type LogWriter = Pick<SpoolWriter, 'logInto' | 'holdsOpen' | 'othersFiles'>;

export function logPath(dir: string, segment: number): string {
  return join(dir, `log-${String(segment).padStart(6, '0')}`);
}

export class LogTail {
  readonly #dir: string;
  #position: SourcePosition;
  #file: FileHandle | undefined;
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);
  /** Bytes behind #position that are no whole line yet. */
  #rest: Buffer = Buffer.alloc(0);
  #hi = 0;
  #lo = 0;
  /** The file that QEMU writes. */
  #newest: number;
  #isTurning = false;
  #wasElsewhere = false;

  constructor(dir: string, position: SourcePosition = { segment: 1, offset: 0 }) {
    this.#dir = dir;
    this.#position = position;
    this.#newest = position.segment;
  }

  /**
   * The whole lines that have come. One call at a time.
   *
   * @param writer undefined: QEMU is gone
   */
  async read(writer: LogWriter | undefined): Promise<LogLine[]> {
    const lines: LogLine[] = [];
    await this.#readFile(lines);
    if (writer === undefined && this.#newest === this.#position.segment) {
      // QEMU may have been told of another file by a recorder that was killed.
      this.#newest++;
    }
    while (this.#newest > this.#position.segment) {
      const path = logPath(this.#dir, this.#position.segment);
      if (writer?.holdsOpen(path) === true) break;
      await this.#readFile(lines);
      if (!(await this.#leave())) break;
      await this.#readFile(lines);
      if (writer === undefined) this.#newest = Math.max(this.#newest, this.#position.segment + 1);
    }
    if (
      this.#newest === this.#position.segment &&
      this.#position.offset > MAX_FILE_BYTES &&
      writer !== undefined
    ) {
      // It is tried again.
      void this.#turnFull(writer).catch(() => undefined);
    }
    return lines;
  }

  async #readFile(lines: LogLine[]): Promise<void> {
    this.#file ??= await openIfThere(logPath(this.#dir, this.#position.segment));
    if (this.#file === undefined) return;
    // What comes while it is read is for the next call: QEMU may write faster than we read.
    const { size } = await this.#file.stat();
    for (;;) {
      const from = this.#position.offset + this.#rest.length;
      if (from >= size) return;
      const { bytesRead } = await this.#file.read(this.#buffer, 0, READ_BYTES, from);
      if (bytesRead === 0) return;
      this.#split(Buffer.concat([this.#rest, this.#buffer.subarray(0, bytesRead)]), lines);
    }
  }

  #split(bytes: Buffer, lines: LogLine[]): void {
    let start = 0;
    for (let end; (end = bytes.indexOf(NEWLINE, start)) >= 0; start = end + 1) {
      this.#add(bytes.subarray(start, end + 1), lines);
    }
    // Longer than any line that means something: what reads the spool calls it damage.
    if (bytes.length - start > MAX_LINE_BYTES) {
      this.#add(bytes.subarray(start), lines);
      start = bytes.length;
    }
    this.#rest = bytes.subarray(start);
  }

  #add(line: Buffer, lines: LogLine[]): void {
    const { stamp } = splitPrefix(line.toString('latin1', 0, Math.min(line.length, 64)));
    if (stamp !== undefined) {
      const ns = BigInt(stamp.sec) * 1_000_000_000n + BigInt(stamp.usec) * 1000n;
      this.#hi = Number(ns >> 32n);
      this.#lo = Number(ns & 0xffff_ffffn);
    }
    const { segment } = this.#position;
    this.#position = { segment, offset: this.#position.offset + line.length };
    lines.push({ hi: this.#hi, lo: this.#lo, bytes: line, next: this.#position });
  }

  /** Goes on with the next file; false where there is none. */
  async #leave(): Promise<boolean> {
    const segment = this.#position.segment + 1;
    const file = await openIfThere(logPath(this.#dir, segment));
    if (file === undefined) {
      this.#newest = Math.min(this.#newest, this.#position.segment);
      return false;
    }
    await this.close();
    this.#file = file;
    this.#position = { segment, offset: 0 };
    this.#rest = Buffer.alloc(0);
    // One before: a recorder that takes over may read the last lines again.
    await rm(logPath(this.#dir, segment - 2), { force: true });
    return true;
  }

  /** Whether a path is that of a file that is read here. */
  isOurs(path: string): boolean {
    return dirname(path) === this.#dir && /^log-\d{6}$/.test(basename(path));
  }

  /** Has QEMU log here again, in another file; throws what it says. */
  async comeBack(writer: LogWriter): Promise<void> {
    const next = this.#newest + 1;
    await writer.logInto(logPath(this.#dir, next));
    this.#newest = next;
  }

  /** Whether somebody sent QEMU's log elsewhere, and it came back unasked; told once. */
  wasElsewhere(): boolean {
    const was = this.#wasElsewhere;
    this.#wasElsewhere = false;
    return was;
  }

  async #turnFull(writer: LogWriter): Promise<void> {
    if (this.#isTurning) return;
    this.#isTurning = true;
    const next = this.#newest + 1;
    try {
      const from = logPath(this.#dir, this.#newest);
      const how = await moveLog(writer, from, logPath(this.#dir, next));
      // Whoever watches the log sees that it is elsewhere.
      if (how === 'left') return;
      this.#newest = next;
      this.#wasElsewhere ||= how === 'back';
    } finally {
      this.#isTurning = false;
    }
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
