/**
 * What a collector knows of each recording, kept so that it can be killed at any moment: one JSON
 * file each. A point says how long the outputs are at one offset in the capture; the last one is what
 * was acknowledged.
 */
import { open, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { makeFolders } from '../base/make-folders.ts';
import type { RecordingHeader } from '../model/events.ts';
import type { Totals } from '../analysis/totals.ts';
import type { TablesSnapshot } from '../model/tables.ts';
import { tablesSchema, totalsSchema } from '../recording/session/checkpoint.ts';
import { headerSchema } from '../recording/session/info.ts';
import { checkSaved, parseJson } from '../recording/session/saved.ts';
import { lockState } from './state-lock.ts';

/** A finished recording's sender may have missed that it is finished: so long it may ask again. */
const KEEP_FINISHED_MS = 7 * 24 * 3600 * 1000;

export interface Point {
  readonly captureOffset: number;
  readonly outputBytes: readonly number[];
  /** How many accesses each has had no line for. */
  readonly leftOut: readonly number[];
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

/** Raised with every change of what is kept. */
const STATE_VERSION = 1;

const pointSchema: z.ZodType<Point> = z.object({
  captureOffset: z.number(),
  outputBytes: z.array(z.number()),
  leftOut: z.array(z.number()),
  tables: tablesSchema,
  totals: totalsSchema,
});
const stateSchema: z.ZodType<CollectedState> = z.object({
  recording: z.string(),
  sender: z.string(),
  host: z.string(),
  session: z.string(),
  devices: z.array(z.string()),
  outputs: z.array(z.string()),
  header: headerSchema,
  points: z.array(pointSchema).min(1),
  finished: z.boolean(),
});
const versionSchema = z.object({ version: z.number() });

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
      await makeFolders(path, 0o700);
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

  /**
   * undefined for one that has not been here. Throws MmioError `damaged`, or `refused` for what
   * another version has kept.
   */
  async read(recording: string): Promise<CollectedState | undefined> {
    const path = this.#fileOf(recording);
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (systemCodeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
    const saved = parseJson(text, path);
    const version = versionSchema.safeParse(saved).data?.version;
    if (version !== STATE_VERSION) {
      throw new MmioError('refused', 'another mmiobridge has collected this recording', {
        evidence: `${path}: version ${version ?? 'unknown'}, not ${STATE_VERSION}`,
        hint: 'go on with the one that began it, or give this collector another --state folder',
      });
    }
    return checkSaved(stateSchema, saved, path);
  }

  /** Resolves when it is on the disk. */
  async write(state: CollectedState): Promise<void> {
    const path = this.#fileOf(state.recording);
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(JSON.stringify({ version: STATE_VERSION, ...state }));
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
      // What cannot be read is told when somebody asks for it.
      const state = await this.read(name.replace(/\.json$/, '')).catch(() => undefined);
      if (state?.finished === true) await rm(path);
    }
  }

  #fileOf(recording: string): string {
    return join(this.#path, `${recording}.json`);
  }
}
