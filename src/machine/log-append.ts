import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { messageOf, systemCodeOf } from '../base/errors.ts';
import type { LogTarget } from './log-target.ts';

const RETRY_MS = 5;
/** A pipe takes so much in one piece, whoever else writes into it (PIPE_BUF, pipe(7)). */
const ATOMIC_BYTES = 4096;
/** A reader that takes nothing for so long is not waited for. */
const PATIENCE_MS = 2000;
/** More than this is not kept for a slow reader. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

/**
 * The file into which lines can be put that QEMU would have logged; undefined where two writers
 * would damage it, or it cannot be opened by name (a socket).
 */
export function appendablePath(target: LogTarget, pid: number): string | undefined {
  switch (target.kind) {
    case 'file':
      return target.path;
    case 'stderr':
      if (target.is === 'stream') return `/proc/${pid}/fd/2`;
      return target.is === 'file' && target.appends ? target.path : undefined;
    case 'none':
      return undefined;
    default:
      return target satisfies never;
  }
}

/**
 * Appends to the log of a QEMU that is not ours: each write goes to the end, whoever else writes
 * there, and what the file held stays. Never waits for the reader of a pipe: what that does not
 * take in time goes to `otherwise`, as does everything where the file cannot be written.
 */
export class LogAppender {
  readonly #path: string;
  readonly #otherwise: (bytes: Uint8Array) => void;
  readonly #onProblem: (message: string) => void;
  #fd: number | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #stuckSinceMs: number | undefined;

  constructor(
    path: string,
    options: {
      readonly otherwise: (bytes: Uint8Array) => void;
      readonly onProblem: (message: string) => void;
    },
  ) {
    this.#path = path;
    this.#otherwise = options.otherwise;
    this.#onProblem = options.onProblem;
    const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK, O_NOCTTY } = constants;
    try {
      this.#fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY, 0o644);
    } catch (error) {
      this.#giveUp(messageOf(error));
    }
  }

  write(bytes: Uint8Array): void {
    if (this.#fd === undefined) {
      this.#otherwise(bytes);
      return;
    }
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#stuckSinceMs === undefined) this.#work();
    else if (this.#waitingBytes > MAX_WAITING_BYTES) this.#giveUp('its reader is too slow');
  }

  #work(): void {
    for (let first; this.#fd !== undefined && (first = this.#waiting[0]) !== undefined;) {
      try {
        const written = writeSync(this.#fd, first.subarray(0, wholeLines(first)));
        this.#waitingBytes -= written;
        this.#stuckSinceMs = undefined;
        if (written === first.length) this.#waiting.shift();
        else this.#waiting[0] = first.subarray(written);
      } catch (error) {
        if (systemCodeOf(error) !== 'EAGAIN') {
          this.#giveUp(messageOf(error));
          return;
        }
        this.#stuckSinceMs ??= performance.now();
        if (performance.now() - this.#stuckSinceMs > PATIENCE_MS) {
          this.#giveUp('nobody reads it');
          return;
        }
        setTimeout(() => this.#work(), RETRY_MS);
        return;
      }
    }
  }

  #giveUp(reason: string): void {
    this.#onProblem(`QEMU's other lines go here, and not to ${this.#path}: ${reason}`);
    this.#close();
    for (const bytes of this.#waiting) this.#otherwise(bytes);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  #close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** As many bytes as can be written without another writer getting into the middle of a line. */
function wholeLines(bytes: Uint8Array): number {
  if (bytes.length <= ATOMIC_BYTES) return bytes.length;
  const newline = bytes.lastIndexOf(0x0a, ATOMIC_BYTES - 1);
  return newline < 0 ? ATOMIC_BYTES : newline + 1;
}
