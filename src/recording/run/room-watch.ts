/**
 * Watches the room in the spool's file system, which others fill as well. What QEMU cannot write
 * there is missing, and QEMU tells nobody: from when there was room last until there is room again
 * is a loss.
 */
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import type { Watching } from './watching.ts';

/** A line of QEMU's log has 300 bytes at most, and room is given in pages. */
const FULL_BYTES = 64 * 1024;

export interface RoomOptions extends Watching {
  /** A file that is there while what comes may not fit; without bytes, so that it fits itself. */
  readonly fullFlag: string;
}

export class RoomWatch {
  readonly #options: RoomOptions;
  #hadRoomNs: number;
  #fullSinceNs: number | undefined;

  constructor(options: RoomOptions) {
    this.#options = options;
    this.#hadRoomNs = options.goodNs;
  }

  get #isFull(): boolean {
    return this.#fullSinceNs !== undefined;
  }

  /** A recorder before us may have been killed while it was full. */
  start(): void {
    const { fullFlag, goodNs } = this.#options;
    if (existsSync(fullFlag)) this.#fullSinceNs = goodNs;
  }

  /** Throws what the system says where the loss cannot be written down yet. */
  async look(freeBytes: number): Promise<void> {
    const { spool, fullFlag, nowNs, onProblem } = this.#options;
    if (freeBytes < FULL_BYTES) {
      if (this.#isFull) return;
      this.#fullSinceNs = this.#hadRoomNs;
      await writeFile(fullFlag, '');
      onProblem(`there is no room left in ${spool.dir}: what QEMU logs now may be missing`);
      return;
    }
    this.#hadRoomNs = nowNs();
    if (!this.#isFull) return;
    await this.finish();
    await rm(fullFlag, { force: true });
    onProblem(`there is room again in ${spool.dir}`);
  }

  /** What is known until now goes into the recording. Throws as `look`. */
  async finish(): Promise<void> {
    const { spool, journal, nowNs } = this.#options;
    const timeNs = this.#fullSinceNs;
    if (timeNs === undefined) return;
    const durationNs = nowNs() - timeNs;
    const reason = 'the file system of the spool was full: what QEMU could not write is not here';
    const at = await spool.end();
    journal.add({ at, event: { kind: 'loss', timeNs, count: -1, durationNs, reason } });
    this.#fullSinceNs = undefined;
  }
}
