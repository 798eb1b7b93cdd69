import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Notice } from '../../base/notice.ts';

/** The segment that we write ourselves, of a source whose accesses QEMU does not log. */
export class SegmentFile {
  readonly #onProblem: Notice;
  #file: number;
  /** What was said last of why it cannot be written: it is tried again every few milliseconds. */
  #problem: string | undefined;

  /** Throws what the system says. */
  constructor(path: string, onProblem: Notice) {
    this.#onProblem = onProblem;
    this.#file = openSync(path, 'a', 0o600);
  }

  /** All or nothing; false, and the user is told, where there is no room. */
  append(bytes: Uint8Array): boolean {
    const { size } = fstatSync(this.#file);
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#file, bytes, done);
      this.#problem = undefined;
      return true;
    } catch (error) {
      ftruncateSync(this.#file, size);
      const problem = `the spool cannot be written: ${messageOf(error)}`;
      if (problem !== this.#problem) this.#onProblem(problem);
      this.#problem = problem;
      return false;
    }
  }

  /** Goes on in another segment. Throws what the system says; then it stays in this one. */
  moveTo(path: string): void {
    const file = openSync(path, 'a', 0o600);
    closeSync(this.#file);
    this.#file = file;
  }

  close(): void {
    closeSync(this.#file);
  }
}
