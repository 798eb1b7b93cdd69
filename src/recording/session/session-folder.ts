/**
 * A running recording's folder: everything that `mark`, `status` and `resume` need. On tmpfs, and
 * closed to other users.
 */
import { access, lstat, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { MmioError, isNoRoom, messageOf, systemCodeOf } from '../../base/errors.ts';
import { makeFolders } from '../../base/make-folders.ts';
import { requireShort } from '../../base/socket-path.ts';
import { VERSION } from '../../base/version.ts';
import { writeWhole } from '../../base/write-whole.ts';
import { isAlive, startTimeOf } from '../../machine/proc.ts';
import { checkpointSchema, type Checkpoint } from './checkpoint.ts';
import { infoSchema, type SessionInfo } from './info.ts';
import { checkSaved, parseJson, SESSION_VERSION } from './saved.ts';

/** `/dev/shm/mmiobridge-UID`, or what MMIOBRIDGE_RUN names. */
export function runDir(): string {
  return process.env['MMIOBRIDGE_RUN'] ?? `/dev/shm/mmiobridge-${process.getuid?.() ?? 0}`;
}

/** Throws MmioError `refused` where others could write into it. */
export async function makeRunDir(): Promise<void> {
  const path = runDir();
  await makeFolders(path, 0o711).catch((error: unknown) => {
    throw cannotWrite(path, error);
  });
  const found = await lstat(path);
  const uid = process.getuid?.() ?? found.uid;
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o022) !== 0) {
    throw new MmioError('refused', `${path} is not safely ours`, {
      evidence: `owner ${found.uid}, mode ${(found.mode & 0o777).toString(8)}; we are ${uid}`,
      hint: 'remove it, or name another folder in MMIOBRIDGE_RUN',
    });
  }
}

/** More than a checkpoint of thousands of registers. */
const BALLAST_BYTES = 2 ** 20;

export class SessionFolder {
  readonly id: string;
  readonly path: string;

  constructor(id: string) {
    this.id = id;
    this.path = join(runDir(), id);
  }

  /** A new folder, named for the time and our process. */
  static async create(): Promise<SessionFolder> {
    const stamp = new Date().toISOString().replace(/[-:]/g, '').slice(0, 15);
    const dir = new SessionFolder(`${stamp}-${process.pid}`);
    // The longest of them.
    requireShort(dir.controlSocket);
    await makeRunDir();
    await removeBeginnings();
    await mkdir(dir.path, { mode: 0o711 }).catch((error: unknown) => {
      throw cannotWrite(dir.path, error);
    });
    return dir;
  }

  get qmpSocket(): string {
    return join(this.path, 'qmp.sock');
  }
  /** The recorder's end: the plugin connects, also to the recorder that goes on. */
  get pluginSocket(): string {
    return join(this.path, 'plugin.sock');
  }
  get controlSocket(): string {
    return join(this.path, 'control.sock');
  }
  get spool(): string {
    return join(this.path, 'spool');
  }
  get journal(): string {
    return join(this.path, 'journal.ndjson');
  }
  /** Where QMP said that the BARs are, where no log tells. */
  get bars(): string {
    return join(this.path, 'bars.ndjson');
  }
  get qemuStderr(): string {
    return join(this.path, 'qemu.stderr');
  }
  /** Is there while the guest stands still because of us. */
  get pausedFlag(): string {
    return join(this.path, 'paused');
  }

  /** Is there while trace events are off because of us. */
  get droppingFlag(): string {
    return join(this.path, 'dropping');
  }

  /** Is there while the spool may have no room for what comes. */
  get fullFlag(): string {
    return join(this.path, 'full');
  }

  /** Switching them on again is then the guard's, which says so in the log. */
  isDropping(): Promise<boolean> {
    return exists(this.droppingFlag);
  }

  async setPaused(): Promise<void> {
    await writeFile(this.pausedFlag, '');
  }

  async setFull(): Promise<void> {
    await writeFile(this.fullFlag, '');
  }

  isPaused(): Promise<boolean> {
    return exists(this.pausedFlag);
  }

  /** The socket of a recorder that is gone. */
  async removeControlSocket(): Promise<void> {
    await rm(this.controlSocket, { force: true });
  }

  async writeInfo(info: SessionInfo): Promise<void> {
    const saved = { version: SESSION_VERSION, tool: VERSION, ...info };
    await this.#write('session.json', JSON.stringify(saved));
  }

  /** @param checkpoint JSON, as `takeCheckpoint` gives it */
  async writeCheckpoint(checkpoint: string): Promise<void> {
    await this.#write('checkpoint.json', checkpoint);
    await this.keepBallast();
  }

  /** Throws MmioError `io`; then what was there before is still there. */
  async #write(name: string, text: string): Promise<void> {
    const path = join(this.path, name);
    const write = () => writeWhole(path, text, 0o600);
    try {
      await write().catch(async (error: unknown) => {
        if (!isNoRoom(error)) throw error;
        await this.dropBallast();
        await write();
      });
    } catch (error) {
      throw cannotWrite(path, error);
    }
  }

  /** Takes room that is given back when none is left: to go on needs a little. */
  async keepBallast(): Promise<void> {
    if (await exists(this.#ballast)) return;
    try {
      await writeFile(this.#ballast, new Uint8Array(BALLAST_BYTES));
    } catch {
      await this.dropBallast();
    }
  }

  async dropBallast(): Promise<void> {
    await rm(this.#ballast, { force: true });
  }

  get #ballast(): string {
    return join(this.path, 'ballast');
  }

  /** Throws MmioError `not-found`; `refused` for another version's, `damaged`. */
  async readInfo(): Promise<SessionInfo> {
    const saved = parseJson(await this.#read('session.json'), this.#named('session.json'));
    this.#requireOurVersion(saved);
    return checkSaved(infoSchema, saved, this.#named('session.json'));
  }

  /** Whether it says what recording it is of. */
  isKnown(): Promise<boolean> {
    return exists(join(this.path, 'session.json'));
  }

  /** Whether there is a place to go on from. */
  hasBegun(): Promise<boolean> {
    return exists(join(this.path, 'checkpoint.json'));
  }

  /** Throws as `readInfo`. */
  async readCheckpoint(): Promise<Checkpoint> {
    const saved = parseJson(await this.#read('checkpoint.json'), this.#named('checkpoint.json'));
    return checkSaved(checkpointSchema, saved, this.#named('checkpoint.json'));
  }

  #named(name: string): string {
    return `${name} of recording ${this.id}`;
  }

  #requireOurVersion(saved: unknown): void {
    const { version, tool } = versionSchema.safeParse(saved).data ?? {};
    if (version === SESSION_VERSION) return;
    const theirs = version === undefined ? 'has no version' : `is of version ${version}`;
    throw new MmioError('refused', `recording ${this.id} was begun by another mmiobridge`, {
      evidence: `its session.json ${theirs}${tool === undefined ? '' : ` (mmiobridge ${tool})`}; this is ${VERSION}, which reads version ${SESSION_VERSION}`,
      hint: 'resume it with the mmiobridge that began it',
    });
  }

  async #read(name: string): Promise<string> {
    try {
      return await readFile(join(this.path, name), 'utf8');
    } catch (error) {
      if (systemCodeOf(error) !== 'ENOENT') throw error;
      const sessions = await listSessions();
      throw new MmioError('not-found', `no recording is called ${this.id}`, {
        evidence: `${join(this.path, name)}: ${messageOf(error)}`,
        hint:
          sessions.length === 0
            ? `there is none in ${runDir()}`
            : `there is: ${sessions.map(({ info }) => info.id).join(', ')}`,
      });
    }
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** Folders of recorders that were killed before they had written anything into them. */
async function removeBeginnings(): Promise<void> {
  for (const name of await readdir(runDir())) {
    const pid = /^\d{8}T\d{6}-(\d+)$/.exec(name)?.[1];
    if (pid === undefined || startTimeOf(Number(pid)) !== undefined) continue;
    const folder = new SessionFolder(name);
    if (!(await folder.isKnown())) await folder.remove();
  }
}

function cannotWrite(path: string, error: unknown): MmioError {
  return new MmioError('io', `cannot write ${path}`, {
    evidence: messageOf(error),
    hint: isNoRoom(error)
      ? 'make room in its file system'
      : 'name a folder of yours, best on tmpfs, in MMIOBRIDGE_RUN',
    cause: error,
  });
}

const versionSchema = z.object({ version: z.number().optional(), tool: z.string().optional() });

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

export interface ListedSession {
  readonly folder: SessionFolder;
  readonly info: SessionInfo;
  /** Its recorder runs. If not, it can be resumed. */
  readonly alive: boolean;
}

/** One that cannot be read: of another version, or damaged. */
export interface UnreadableSession {
  readonly id: string;
  readonly error: MmioError;
}

/** What there is in the folder of this user's recordings. */
export interface FoundSessions {
  /** Those that run or wait to be resumed, oldest first. */
  readonly sessions: readonly ListedSession[];
  readonly unreadable: readonly UnreadableSession[];
}

/** The recordings of this user that run or wait to be resumed, oldest first. */
export async function listSessions(): Promise<readonly ListedSession[]> {
  return (await findSessions()).sessions;
}

/** The ids of all that was found. */
export function idsOf({ sessions, unreadable }: FoundSessions): string[] {
  return [...sessions.map(({ info }) => info.id), ...unreadable.map(({ id }) => id)];
}

/**
 * The id that is meant by its beginning: as it is where there is such a recording, or none. Throws
 * MmioError `usage` where several begin so.
 */
export function wholeId(beginning: string, ids: readonly string[]): string {
  const fitting = [...new Set(ids)].filter((id) => id.startsWith(beginning));
  if (ids.includes(beginning) || fitting.length === 0) return beginning;
  const [only = beginning, ...more] = fitting;
  if (more.length === 0) return only;
  throw new MmioError('usage', `which recording? ${fitting.length} begin with ${beginning}`, {
    evidence: fitting.join(', '),
    hint: 'give more of its name',
  });
}

/** As `listSessions`, with those that are there and cannot be read. */
export async function findSessions(): Promise<FoundSessions> {
  const names = await readdir(runDir()).catch((error: unknown) => {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw new MmioError('io', `cannot look into the folder of recordings, ${runDir()}`, {
      evidence: messageOf(error),
      hint: 'MMIOBRIDGE_RUN names another',
      cause: error,
    });
  });
  const sessions: ListedSession[] = [];
  const unreadable: UnreadableSession[] = [];
  for (const name of names.toSorted()) {
    const folder = new SessionFolder(name);
    try {
      if (!(await folder.isKnown())) continue;
      const info = await folder.readInfo();
      const alive = isAlive(info.recorder.pid, info.recorder.startTime);
      sessions.push({ folder, info, alive });
    } catch (error) {
      if (!(error instanceof MmioError)) throw error;
      // One that ends just now takes its folder along.
      if (error.code !== 'not-found') unreadable.push({ id: name, error });
    }
  }
  return { sessions, unreadable };
}
