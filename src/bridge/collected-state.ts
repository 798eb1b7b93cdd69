/**
 * What a collector knows of each recording, kept so that it can be killed at any moment: one JSON
 * file each. A point says how long the outputs are at one offset in the capture; the last one is what
 * was acknowledged.
 */
import { mkdir, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import type { RecordingHeader } from '../model/events.ts';
import type { Totals } from '../analysis/totals.ts';
import type { TablesSnapshot } from '../model/tables.ts';
import { lockState } from './state-lock.ts';

/** A finished recording's sender may have missed that it is finished: so long it may ask again. */
const KEEP_FINISHED_MS = 7 * 24 * 3600 * 1000;

export interface Point {
  readonly captureOffset: number;
  readonly outputBytes: readonly number[];
  readonly tables: TablesSnapshot;
  readonly totals: Totals;
}

export interface CollectedState {
  readonly recording: string;
  /** The process whose frames these are. */
  readonly sender: string;
  readonly host: string;
  readonly session: string;
  readonly devices: readonly string[];
  readonly outputs: readonly string[];
  readonly header: RecordingHeader;
  /** From the first offset that the sender may go back to, to what is acknowledged; never empty. */
  readonly points: readonly Point[];
  readonly finished: boolean;
}

export class StateFolder {
  readonly #path: string;
  /** Lets another collector have it. */
  readonly close: () => Promise<void>;

  private constructor(path: string, unlock: () => Promise<void>) {
    this.#path = path;
    this.close = unlock;
  }

  /**
   * Makes it where there is none, and forgets what was finished long ago. Throws MmioError `io`, or
   * `usage` where another collector has it.
   */
  static async open(path: string): Promise<StateFolder> {
    try {
      await mkdir(path, { recursive: true, mode: 0o700 });
      const folder = new StateFolder(path, await lockState(path));
      await folder.#forgetOld();
      return folder;
    } catch (error) {
      if (error instanceof MmioError) throw error;
      throw new MmioError('io', `cannot keep the collector's state in ${path}`, {
        evidence: messageOf(error),
        hint: 'name a folder of yours with --state',
        cause: error,
      });
    }
  }

  /** undefined for one that has not been here. */
  async read(recording: string): Promise<CollectedState | undefined> {
    try {
      return JSON.parse(await readFile(this.#fileOf(recording), 'utf8')) as CollectedState;
    } catch (error) {
      if (systemCodeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Resolves when it is on the disk. */
  async write(state: CollectedState): Promise<void> {
    const path = this.#fileOf(state.recording);
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(JSON.stringify(state));
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    const folder = await open(this.#path);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  async #forgetOld(): Promise<void> {
    for (const name of await readdir(this.#path)) {
      if (!name.endsWith('.json')) continue;
      const path = join(this.#path, name);
      if (Date.now() - (await stat(path)).mtimeMs < KEEP_FINISHED_MS) continue;
      const { finished } = JSON.parse(await readFile(path, 'utf8')) as CollectedState;
      if (finished) await rm(path);
    }
  }

  #fileOf(recording: string): string {
    return join(this.#path, `${recording}.json`);
  }
}
