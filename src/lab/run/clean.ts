/** Puts back what runs have left whose runner was killed. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MmioError, describeError } from '../../base/errors.ts';
import type { Notice } from '../../base/notice.ts';
import { writeWhole } from '../../base/write-whole.ts';
import { isAlive } from '../../machine/proc.ts';
import { closeSession } from '../../recording/begin/close.ts';
import { resumeRecording } from '../../recording/begin/resume.ts';
import type { SessionInfo } from '../../recording/session/info.ts';
import {
  findSessions,
  runDir,
  type SessionFolder,
} from '../../recording/session/session-folder.ts';
import { openSender } from '../../bridge/sender.ts';
import { endRecording } from '../machine/end-recording.ts';
import { unbindOne } from './binding.ts';
import { findStates, removeState, type LabState } from './state.ts';

export interface Cleaned {
  readonly folder: string;
  /** What was done. */
  readonly done: readonly string[];
  /** What could not be. */
  readonly left: readonly string[];
}

/** Throws MmioError where it cannot look. Runs that are going on are left alone. */
export async function cleanRuns(notice: Notice): Promise<Cleaned[]> {
  const cleaned: Cleaned[] = [];
  for (const { state, alive } of await findStates()) {
    if (alive) notice(`${state.folder} is being run, by process ${state.runner.pid}: left alone`);
    else cleaned.push(await cleanRun(state, notice));
  }
  return cleaned;
}

async function cleanRun(state: LabState, notice: Notice): Promise<Cleaned> {
  const done: string[] = [];
  const left: string[] = [];
  const attempt = async (
    what: string,
    work: () => Promise<string | undefined>,
    wayOut: () => string = () => '',
  ) => {
    try {
      const result = await work();
      if (result !== undefined) done.push(result);
    } catch (error) {
      left.push(`${what}: ${describeError(error)}${wayOut()}`);
    }
  };
  const { sessions } = await findSessions();
  const { pid, startTime } = state.runner;
  for (const { folder, info } of sessions) {
    const { recorder } = info;
    if (recorder.pid !== pid || recorder.startTime !== startTime) continue;
    const finish = () => finishRecording(info.id, notice);
    await attempt(`recording ${info.id}`, finish, () => wayToGiveUp(folder, info));
  }
  const sockets = join(runDir(), 'lab', String(pid));
  await rm(sockets, { recursive: true, force: true });
  for (const address of state.bound) {
    await attempt(address, async () => {
      const driver = await unbindOne(address);
      return `${address} is given back; its driver: ${driver ?? 'none'}`;
    });
  }
  await attempt('manifest.json', () => noteInterruption(state.folder, [...done], [...left]));
  if (left.length === 0) await removeState(state.id);
  return { folder: state.folder, done, left };
}

/** For a recording that cannot be written to its end, since its outputs are gone, say. */
function wayToGiveUp(folder: SessionFolder, { launched, qemu }: SessionInfo): string {
  const runs = launched && qemu !== undefined && isAlive(qemu.pid, qemu.startTime);
  return `; mend that, or give the recording up: ${runs ? `kill ${qemu.pid}; ` : ''}rm -r ${folder.path}`;
}

/** Writes what its spool has, and ends its VM, or takes the recording off it. */
async function finishRecording(id: string, notice: Notice): Promise<string> {
  let started;
  try {
    started = await resumeRecording(id, {
      notice,
      onUserLog: () => undefined,
      openRemote: openSender,
    });
  } catch (error) {
    // One that had not begun is cleared up with that.
    if (
      error instanceof MmioError &&
      error.code === 'refused' &&
      /had not begun/.test(error.message)
    ) {
      return `recording ${id} had not begun: ${error.evidence ?? ''}`;
    }
    throw error;
  }
  const { recording, info } = started;
  const { complete } = await endRecording(recording, recording.run());
  await closeSession(started);
  const { qemu, launched } = info;
  const gone = qemu === undefined || !isAlive(qemu.pid, qemu.startTime);
  const vm = launched ? (gone ? 'its VM is ended' : 'its VM still runs') : 'QEMU is as it was';
  return `recording ${id} is written to its end${complete ? '' : ', INCOMPLETE'}; ${vm}`;
}

/** So that nobody takes a run for one that still goes on, or for a whole one. */
async function noteInterruption(
  folder: string,
  done: readonly string[],
  left: readonly string[],
): Promise<string | undefined> {
  const path = join(folder, 'manifest.json');
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const manifest: unknown = JSON.parse(text);
  if (typeof manifest !== 'object' || manifest === null) return undefined;
  const isOpen = 'result' in manifest && manifest.result === 'running';
  const changed = {
    ...manifest,
    ...(isOpen && {
      result: 'interrupted',
      reason: 'its runner was killed, or had no room to write how it ended',
    }),
    left,
    cleaned: done,
  };
  await writeWhole(path, `${JSON.stringify(changed, null, 2)}\n`);
  return undefined;
}
