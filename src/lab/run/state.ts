/**
 * What a run has taken from the host, written down before it is taken: so that `lab clean` can give it
 * back when the runner was killed. A file a run, below the folder of the recordings.
 */
import { readFile, readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { makeFolders } from '../../base/make-folders.ts';
import { writeWhole } from '../../base/write-whole.ts';
import { isAlive, ourselves } from '../../machine/proc.ts';
import { makeRunDir, runDir } from '../../recording/session/session-folder.ts';

const stateSchema = z.object({
  version: z.literal(1),
  id: z.string(),
  runner: z.object({ pid: z.number(), startTime: z.number() }),
  /** The folder of the run. */
  folder: z.string(),
  scenario: z.string(),
  /** Devices that were bound for the run, by address. */
  bound: z.array(z.string()),
});

export type LabState = z.infer<typeof stateSchema>;

function stateDir(): string {
  return join(runDir(), 'lab');
}

export class StateFile {
  #state: LabState;

  private constructor(state: LabState) {
    this.#state = state;
  }

  static async create(id: string, folder: string, scenario: string): Promise<StateFile> {
    await makeRunDir();
    const file = new StateFile({
      version: 1,
      id,
      runner: ourselves(),
      folder,
      scenario,
      bound: [],
    });
    await file.#write();
    return file;
  }

  async setBound(bound: readonly string[]): Promise<void> {
    this.#state = { ...this.#state, bound: [...bound] };
    await this.#write();
  }

  async #write(): Promise<void> {
    const path = pathOf(this.#state.id);
    const text = JSON.stringify(this.#state);
    for (;;) {
      await makeFolders(stateDir(), 0o711);
      try {
        await writeWhole(path, text, 0o600);
        return;
      } catch (error) {
        // Another run was the last one there, and took the folder along.
        if (systemCodeOf(error) !== 'ENOENT') throw error;
      }
    }
  }

  async remove(): Promise<void> {
    await removeState(this.#state.id);
  }
}

function pathOf(id: string): string {
  return join(stateDir(), `${id}.json`);
}

export async function removeState(id: string): Promise<void> {
  await rm(pathOf(id), { force: true });
  // Others may have theirs there.
  await rmdir(stateDir()).catch(() => undefined);
}

export interface FoundState {
  readonly state: LabState;
  /** Its runner runs. */
  readonly alive: boolean;
}

/** The runs that are going on here, or were left. Throws MmioError `damaged`, `io`. */
export async function findStates(): Promise<FoundState[]> {
  const names = await readdir(stateDir()).catch((error: unknown) => {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw new MmioError('io', 'cannot look for runs that were left', {
      evidence: messageOf(error),
      cause: error,
    });
  });
  const found: FoundState[] = [];
  for (const name of names.toSorted()) {
    if (!name.endsWith('.json')) continue;
    const path = join(stateDir(), name);
    let parsed: unknown;
    try {
      parsed = JSON.parse(await readFile(path, 'utf8'));
    } catch (error) {
      // One that ends just now takes it along.
      if (systemCodeOf(error) === 'ENOENT') continue;
      parsed = undefined;
    }
    const state = stateSchema.safeParse(parsed);
    if (!state.success) {
      throw new MmioError('damaged', `${path} is not what a run writes`, {
        hint: 'look at it, give back what it names, and remove it',
      });
    }
    const { pid, startTime } = state.data.runner;
    found.push({ state: state.data, alive: isAlive(pid, startTime) });
  }
  return found;
}
