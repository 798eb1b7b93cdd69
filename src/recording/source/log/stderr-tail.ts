import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { mayTellFailure, splitPrefix } from '../../../sources/qemu-log/grammar.ts';
import type { Interjection } from '../../../sources/qemu-log/decoder.ts';
import type { Start } from '../recording-source.ts';

const READ_BYTES = 256 * 1024;
/** QEMU's messages are shorter. */
const MAX_LINE_BYTES = 4096;
const NEWLINE = 0x0a;

/** Reads what QEMU says on standard error of accesses that failed: its log does not tell of them. */
export class StderrTail {
  readonly #start: Start;
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);
  #file: number | undefined;
  #at: number;

  /**
   * Throws what the system says.
   *
   * @param at where to begin, in bytes; always that of a line
   */
  constructor(path: string, start: Start, at: number) {
    this.#file = openSync(path, 'r');
    this.#start = start;
    this.#at = at;
  }

  /** All before it has been read: always the end of a line. */
  get at(): number {
    return this.#at;
  }

  /** What has come since the last call, of whole lines. */
  read(): Interjection[] {
    const found: Interjection[] = [];
    if (this.#file === undefined) return found;
    // What comes while it is read is for the next call.
    for (const { size } = fstatSync(this.#file); this.#at < size;) {
      const length = readSync(this.#file, this.#buffer, 0, READ_BYTES, this.#at);
      let end = this.#buffer.lastIndexOf(NEWLINE, length - 1) + 1;
      if (end === 0 && length > MAX_LINE_BYTES) end = length;
      if (end === 0) break;
      this.#take(this.#buffer.toString('latin1', 0, end), found);
      this.#at += end;
    }
    return found;
  }

  #take(text: string, found: Interjection[]): void {
    if (!mayTellFailure(text)) return;
    let at = this.#at;
    for (const line of text.split('\n')) {
      if (mayTellFailure(line)) found.push({ timeNs: this.#timeOf(line), text: line, at });
      at += line.length + 1;
    }
  }

  #timeOf(line: string): number {
    const { stamp } = splitPrefix(line);
    if (stamp === undefined) return NaN;
    const { startSec, startNs } = this.#start;
    return (stamp.sec - startSec) * 1e9 + stamp.usec * 1000 - startNs;
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}
