/** Reads the lines of QEMU's log as they come, and has QEMU begin another file when one is long. */
import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { systemCodeOf } from '../../../base/errors.ts';
import type { LogPlace } from '../../../sources/plugin/frames.ts';
import { splitPrefix } from '../../../sources/qemu-log/grammar.ts';
import type { LogLine } from './merge.ts';

const MAX_FILE_BYTES = 16 * 1024 * 1024;
const READ_BYTES = 256 * 1024;
const NEWLINE = 0x0a;

/** The part of a VM that is needed here. */
export interface LogWriter {
  logInto(path: string): Promise<void>;
  holdsOpen(path: string): boolean | undefined;
}

export function logPath(dir: string, segment: number): string {
  return join(dir, `log-${String(segment).padStart(6, '0')}`);
}

export class LogTail {
  readonly #dir: string;
  #place: LogPlace;
  #file: number | undefined;
  /** Bytes behind #place that are no whole line yet. */
  #rest: Buffer = Buffer.alloc(0);
  #hi = 0;
  #lo = 0;
  /** The file that QEMU writes. */
  #newest: number;
  #isTurning = false;

  constructor(dir: string, place: LogPlace = { segment: 1, offset: 0 }) {
    this.#dir = dir;
    this.#place = place;
    this.#newest = place.segment;
  }

  /**
   * The whole lines that have come.
   *
   * @param writer undefined: QEMU is gone
   */
  read(writer: LogWriter | undefined): LogLine[] {
    const lines = this.#readFile();
    if (writer === undefined && this.#newest === this.#place.segment) {
      // QEMU may have been told of another file by a recorder that was killed.
      this.#newest++;
    }
    if (this.#newest > this.#place.segment) {
      const path = logPath(this.#dir, this.#place.segment);
      if (writer?.holdsOpen(path) !== true) {
        lines.push(...this.#readFile());
        if (this.#leave()) lines.push(...this.read(writer));
      }
    } else if (this.#place.offset > MAX_FILE_BYTES && writer !== undefined) this.#turn(writer);
    return lines;
  }

  #readFile(): LogLine[] {
    this.#file ??= openIfThere(logPath(this.#dir, this.#place.segment));
    if (this.#file === undefined) return [];
    const lines: LogLine[] = [];
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      const from = this.#place.offset + this.#rest.length;
      const count = readSync(this.#file, buffer, 0, READ_BYTES, from);
      if (count === 0) return lines;
      this.#split(Buffer.concat([this.#rest, buffer.subarray(0, count)]), lines);
    }
  }

  #split(bytes: Buffer, lines: LogLine[]): void {
    let start = 0;
    for (let end; (end = bytes.indexOf(NEWLINE, start)) >= 0; start = end + 1) {
      const line = bytes.subarray(start, end + 1);
      const { stamp } = splitPrefix(line.toString('latin1', 0, Math.min(line.length, 64)));
      if (stamp !== undefined) {
        const ns = BigInt(stamp.sec) * 1_000_000_000n + BigInt(stamp.usec) * 1000n;
        this.#hi = Number(ns >> 32n);
        this.#lo = Number(ns & 0xffff_ffffn);
      }
      const { segment } = this.#place;
      this.#place = { segment, offset: this.#place.offset + line.length };
      lines.push({ hi: this.#hi, lo: this.#lo, bytes: line, next: this.#place });
    }
    this.#rest = bytes.subarray(start);
  }

  /** Goes on with the next file; false where there is none. */
  #leave(): boolean {
    const segment = this.#place.segment + 1;
    const file = openIfThere(logPath(this.#dir, segment));
    if (file === undefined) {
      this.#newest = Math.min(this.#newest, this.#place.segment);
      return false;
    }
    this.close();
    this.#file = file;
    this.#place = { segment, offset: 0 };
    this.#rest = Buffer.alloc(0);
    // One before: a recorder that takes over may read the last lines again.
    rmSync(logPath(this.#dir, segment - 2), { force: true });
    return true;
  }

  #turn(writer: LogWriter): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    const next = this.#place.segment + 1;
    writer
      .logInto(logPath(this.#dir, next))
      .then(() => (this.#newest = next))
      // It is tried again.
      .catch(() => undefined)
      .finally(() => (this.#isTurning = false));
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
