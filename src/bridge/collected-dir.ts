/**
 * Where `mark` and `status` find the recordings that a collector on this machine takes: a folder
 * each, beside those of the recordings that are made here.
 */
import { mkdir, readFile, readdir, rm } from 'node:fs/promises';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { writeWhole } from '../base/write-whole.ts';
import { serveControl, type ControlRequest } from '../recording/session/control-socket.ts';
import { processRefSchema } from '../recording/session/info.ts';
import { makeRunDir, runDir } from '../recording/session/session-folder.ts';
import { ourselves, type ProcessRef, isAlive } from '../machine/proc.ts';
import type { RecordingStatus } from '../recording/session/status.ts';
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
  /** None before the recording begins. */
  readonly outputs: readonly string[];
}

/** What a collector answers to `status`. */
export interface CollectedStatus {
  readonly peer: string | null;
  /** Why there is no connection, or nothing is written. */
  readonly problem: string | null;
  readonly accesses: number;
  readonly outputs: readonly string[];
  /** As its recorder says, if it can be asked. */
  readonly recorder: RecordingStatus | null;
}

export class CollectedDir {
  readonly #path: string;
  readonly #server: Server;
  #info: CollectedInfo;
  #written = Promise.resolve();

  private constructor(path: string, server: Server, info: CollectedInfo) {
    this.#path = path;
    this.#server = server;
    this.#info = info;
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
    const info = { id, session, collector: ourselves(), controlSocket, outputs: [] };
    const dir = new CollectedDir(path, server, info);
    await dir.#write();
    return dir;
  }

  setOutputs(outputs: readonly string[]): void {
    this.#info = { ...this.#info, outputs };
    // Without it the recording is not found by its outputs, which is no reason to stop it.
    this.#written = this.#written.then(() => this.#write()).catch(() => undefined);
  }

  /** Whoever reads it meanwhile reads it whole. */
  async #write(): Promise<void> {
    await writeWhole(join(this.#path, INFO), JSON.stringify(this.#info), 0o600);
  }

  async remove(): Promise<void> {
    this.#server.close();
    await this.#written;
    await rm(this.#path, { recursive: true, force: true });
  }
}

const infoSchema: z.ZodType<CollectedInfo> = z.object({
  id: z.string(),
  session: z.string(),
  collector: processRefSchema,
  controlSocket: z.string(),
  outputs: z.array(z.string()),
});

/** undefined for what no collector of ours has written: it is none. */
function infoOf(text: string): CollectedInfo | undefined {
  try {
    return infoSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
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
    const info = infoOf(text);
    if (info === undefined) continue;
    if (isAlive(info.collector.pid, info.collector.startTime)) listed.push(info);
    else await rm(path, { recursive: true, force: true });
  }
  return listed;
}
