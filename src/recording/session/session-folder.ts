/**
 * A running recording's folder: everything that `mark`, `status` and `resume` need. On tmpfs, and
 * closed to other users.
 */
import { constants } from 'node:fs';
import { access, lstat, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import type { CoverageRange } from '../../model/coverage.ts';
import type { SourcePosition } from '../../model/position.ts';
import type { RecordingHeader } from '../../model/events.ts';
import type { RecordingCountsSnapshot } from '../../analysis/recording-counts.ts';
import type { UserLog } from '../../machine/argv-user.ts';
import type { LogTarget } from '../../machine/log-target.ts';
import { isAlive, type ProcessRef } from '../../machine/proc.ts';
import type { OutputFormat } from '../../sinks/index.ts';
import type { Marked } from '../../sinks/marked.ts';
import type { KvmDecoderSnapshot } from '../../sources/kvm-tracepoints/decoder.ts';
import type { JoinCounts } from '../../sources/kvm-tracepoints/join.ts';
import type { PluginDecoderSnapshot } from '../../sources/plugin/decoder.ts';
import type { KvmTraceInfo } from '../../sources/kvm-tracepoints/formats.ts';
import type { RemoteTarget } from './remote.ts';
import type { AttributionSnapshot } from '../../attribution/attribution.ts';

/** Who tells of the accesses: QEMU's log, KVM's tracepoints alone, or the QEMU plugin. */
export type RecordSource = 'log' | 'kvm' | 'plugin';

/** What a recording is; written once, and again when another process takes it over. */
export interface SessionInfo {
  readonly id: string;
  readonly recorder: ProcessRef;
  readonly qemu: ProcessRef | undefined;
  /** We started QEMU, and may end it. */
  readonly launched: boolean;
  readonly qmpAddress: string;
  readonly spoolDir: string;
  readonly header: RecordingHeader;
  readonly selection: readonly string[];
  readonly outputs: readonly string[];
  /** The collector that it goes to, too. */
  readonly remote?: RemoteTarget | undefined;
  /** Of outputs whose name does not tell. */
  readonly format?: OutputFormat | undefined;
  /** What the text tells of by MARKs. */
  readonly marks?: readonly Marked[] | undefined;
  readonly overflow: 'pause' | 'drop';
  readonly spoolLimitBytes: number;
  readonly traceEvents: readonly string[];
  /** Trace states and log file to put back at the end, where we attached. */
  readonly restore:
    | {
        readonly events: readonly (readonly [string, boolean])[];
        readonly log: LogTarget;
      }
    | undefined;
  /** Where lines go that are the user's own. */
  readonly userLog: UserLog | undefined;
  /** Program counters are wanted. */
  readonly pc: boolean;
  /** KVM's tracepoints, where they are used. */
  readonly kvm?: (KvmTraceInfo & { readonly originNs: number }) | undefined;
  /** QEMU's name of what it emulates, where its plugin is used. */
  readonly plugin?: { readonly target: string } | undefined;
  readonly source: RecordSource;
}

/** How far everything has got, at one place in the stream. */
export interface Checkpoint {
  readonly position: SourcePosition;
  readonly journalTaken: number;
  readonly attribution: AttributionSnapshot;
  readonly counts: RecordingCountsSnapshot;
  /** Length of each output, in the order of `SessionInfo.outputs`; then that of `remote`. */
  readonly outputBytes: readonly number[];
  readonly userLogBytes: number;
  readonly otherLines: readonly (readonly [string, number])[];
  readonly stampedLines: number;
  readonly unstampedLines: number;
  readonly coverage: readonly CoverageRange[];
  readonly notes: readonly string[];
  readonly pc?: JoinCounts;
  readonly kvm?: KvmDecoderSnapshot;
  readonly plugin?: PluginDecoderSnapshot;
}

/** `/dev/shm/mmiobridge-UID`, or what MMIOBRIDGE_RUN names. */
export function runDir(): string {
  return process.env['MMIOBRIDGE_RUN'] ?? `/dev/shm/mmiobridge-${process.getuid?.() ?? 0}`;
}

/** Throws MmioError `refused` where others could write into it. */
export async function makeRunDir(): Promise<void> {
  const path = runDir();
  await mkdir(path, { recursive: true, mode: 0o711 });
  const found = await lstat(path);
  const uid = process.getuid?.() ?? found.uid;
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o022) !== 0) {
    throw new MmioError('refused', `${path} is not safely ours`, {
      evidence: `owner ${found.uid}, mode ${(found.mode & 0o777).toString(8)}; we are ${uid}`,
      hint: 'remove it, or name another folder in MMIOBRIDGE_RUN',
    });
  }
}

export class SessionFolder {
  readonly id: string;
  readonly path: string;

  constructor(id: string) {
    this.id = id;
    this.path = join(runDir(), id);
  }

  /** A new folder, named for the time and our process. */
  static async create(): Promise<SessionFolder> {
    await makeRunDir();
    const stamp = new Date().toISOString().replace(/[-:]/g, '').slice(0, 15);
    const dir = new SessionFolder(`${stamp}-${process.pid}`);
    await mkdir(dir.path, { mode: 0o711 });
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

  /** Switching them on again is then the guard's, which says so in the log. */
  isDropping(): Promise<boolean> {
    return exists(this.droppingFlag);
  }

  async setPaused(): Promise<void> {
    await writeFile(this.pausedFlag, '');
  }

  isPaused(): Promise<boolean> {
    return exists(this.pausedFlag);
  }

  /** The socket of a recorder that is gone. */
  async removeControlSocket(): Promise<void> {
    await rm(this.controlSocket, { force: true });
  }

  async writeInfo(info: SessionInfo): Promise<void> {
    await this.#write('session.json', info);
  }

  async writeCheckpoint(checkpoint: Checkpoint): Promise<void> {
    await this.#write('checkpoint.json', checkpoint);
  }

  async #write(name: string, value: unknown): Promise<void> {
    const path = join(this.path, name);
    await writeFile(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  async readInfo(): Promise<SessionInfo> {
    return JSON.parse(await this.#read('session.json')) as SessionInfo;
  }

  async readCheckpoint(): Promise<Checkpoint> {
    return JSON.parse(await this.#read('checkpoint.json')) as Checkpoint;
  }

  async #read(name: string): Promise<string> {
    try {
      return await readFile(join(this.path, name), 'utf8');
    } catch (error) {
      if (systemCodeOf(error) !== 'ENOENT') throw error;
      if (name !== 'session.json') {
        throw new MmioError('not-found', `recording ${this.id} had not yet begun`, {
          evidence: `${join(this.path, name)}: ${messageOf(error)}`,
          hint: `nothing was recorded: end its QEMU and remove ${this.path}`,
        });
      }
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

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

export interface ListedSession {
  readonly dir: SessionFolder;
  readonly info: SessionInfo;
  /** Its recorder runs. If not, it can be resumed. */
  readonly alive: boolean;
}

/** All recordings of this user that run or wait to be resumed, oldest first. */
export async function listSessions(): Promise<readonly ListedSession[]> {
  const names = await readdir(runDir()).catch(() => []);
  const listed: ListedSession[] = [];
  for (const name of names.toSorted()) {
    const dir = new SessionFolder(name);
    const there = await access(join(dir.path, 'session.json'), constants.R_OK).then(
      () => true,
      () => false,
    );
    if (!there) continue;
    // One that ends just now takes its folder along.
    const info = await dir.readInfo().catch(() => undefined);
    if (info === undefined) continue;
    listed.push({ dir, info, alive: isAlive(info.recorder.pid, info.recorder.startTime) });
  }
  return listed;
}
