/**
 * Where `mark` and `status` find the recordings that a collector on this machine takes: a folder
 * each, beside those of the recordings that are made here.
 */
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { serveControl, type ControlRequest } from '../recording/control.ts';
import { makeRunDir, runDir } from '../recording/session-dir.ts';
import { ourselves, type ProcessRef, isAlive } from '../machine/proc.ts';
import type { LiveStatus } from '../recording/live.ts';
import { tame } from './output-names.ts';

const INFO = 'collected.json';
/** With them the path of a socket stays within what the system allows. */
const MAX_HOST_CHARS = 24;
const MAX_SESSION_CHARS = 32;

export interface CollectedInfo {
  /** `SESSION@HOST` */
  readonly id: string;
  /** As the recording is called where it is made. */
  readonly session: string;
  readonly collector: ProcessRef;
  readonly controlSocket: string;
}

/** What a collector answers to `status`. */
export interface CollectedStatus {
  readonly peer: string | null;
  /** Why there is no connection, or nothing is written. */
  readonly problem: string | null;
  readonly accesses: number;
  readonly outputs: readonly string[];
  /** As its recorder says, if it can be asked. */
  readonly recorder: LiveStatus | null;
}

export class CollectedDir {
  readonly #path: string;
  readonly #server: Server;

  private constructor(path: string, server: Server) {
    this.#path = path;
    this.#server = server;
  }

  static async create(
    facts: { readonly session: string; readonly host: string; readonly recording: string },
    answer: (request: ControlRequest) => Promise<unknown>,
  ): Promise<CollectedDir> {
    await makeRunDir();
    const session = tame(facts.session).slice(0, MAX_SESSION_CHARS);
    const plain = `${session}@${tame(facts.host).slice(0, MAX_HOST_CHARS)}`;
    const taken = (await listCollected()).some(({ id }) => id === plain);
    const id = taken ? `${plain}-${facts.recording.slice(0, 6)}` : plain;
    const path = join(runDir(), id);
    // Of a collector that was killed.
    await rm(path, { recursive: true, force: true });
    await mkdir(path, { mode: 0o700 });
    const controlSocket = join(path, 'control.sock');
    const server = await serveControl(controlSocket, answer);
    const info: CollectedInfo = { id, session, collector: ourselves(), controlSocket };
    await writeFile(join(path, INFO), JSON.stringify(info), { mode: 0o600 });
    return new CollectedDir(path, server);
  }

  async remove(): Promise<void> {
    this.#server.close();
    await rm(this.#path, { recursive: true, force: true });
  }
}

/** Those that a collector of this user takes now, by name. What a killed one left goes away. */
export async function listCollected(): Promise<readonly CollectedInfo[]> {
  const listed: CollectedInfo[] = [];
  for (const name of (await readdir(runDir()).catch(() => [])).toSorted()) {
    const path = join(runDir(), name);
    // No folder of a collector, or one that goes away just now.
    const text = await readFile(join(path, INFO), 'utf8').catch(() => undefined);
    if (text === undefined || text === '') continue;
    const info = JSON.parse(text) as CollectedInfo;
    if (isAlive(info.collector.pid, info.collector.startTime)) listed.push(info);
    else await rm(path, { recursive: true, force: true });
  }
  return listed;
}
