import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { describeError } from '../base/errors.ts';
import type { Notice } from '../base/notice.ts';

/** Less is not worth a process. */
const PIECE_BYTES = 2 ** 20;
const PAGE_BYTES = 4096;
/** QEMU's last words are shown at the end. */
const KEPT_BYTES = 64 * 1024;

/**
 * What QEMU says on standard error lies in the run folder, on tmpfs, and there may be 30 MiB of it a
 * second. What has been read gives its room back; the file keeps its length, and QEMU its place in it.
 */
export class StderrLimit {
  readonly #path: string;
  readonly #notice: Notice;
  #freed = 0;
  #canFree = true;

  constructor(path: string, notice: Notice) {
    this.#path = path;
    this.#notice = notice;
  }

  /** Never throws: it is tried again, or, where that is in vain, told. */
  async release(readBytes: number): Promise<void> {
    if (!this.#canFree) return;
    try {
      const { size } = await stat(this.#path);
      const most = Math.min(readBytes, size - KEPT_BYTES);
      const until = most - (most % PAGE_BYTES);
      if (until - this.#freed < PIECE_BYTES) return;
      const range = ['--offset', String(this.#freed), '--length', String(until - this.#freed)];
      // Node has no call for it.
      await promisify(execFile)('fallocate', ['--punch-hole', ...range, this.#path]);
      this.#freed = until;
    } catch (error) {
      this.#canFree = false;
      this.#notice(
        `what QEMU says on standard error fills ${this.#path}: it cannot be made shorter (${describeError(error)})`,
      );
    }
  }
}
