/** `status`: the recordings that run here or are collected here. */
import {
  listCollected,
  type CollectedInfo,
  type CollectedStatus,
} from '../../bridge/collected-dir.ts';
import { askControl } from '../../recording/session/control-socket.ts';
import type { RecordingStatus } from '../../recording/session/status.ts';
import type { RemoteState } from '../../recording/session/remote.ts';
import {
  findSessions,
  idsOf,
  runDir,
  type ListedSession,
  type UnreadableSession,
  wholeId,
} from '../../recording/session/session-folder.ts';
import { MmioError, describeError } from '../../base/errors.ts';
import { bytes, count, counted } from '../../base/format.ts';
import { answer, duration } from '../print.ts';

export interface StatusOptions {
  readonly session?: string | undefined;
  readonly json?: true | undefined;
}

interface Entry {
  readonly session: string;
  readonly state: string;
  readonly status?: RecordingStatus;
  /** Why it cannot be read. */
  readonly problem?: string;
  /** Of one that a collector here takes. */
  readonly collected?: CollectedStatus;
}

export async function runStatus(options: StatusOptions): Promise<void> {
  const found = await findSessions();
  const { sessions, unreadable } = found;
  const collected = await listCollected();
  const ids = [...idsOf(found), ...collected.map(({ id }) => id)];
  const session = options.session && wholeId(options.session, ids);
  const isWanted = (id: string) => [undefined, id].includes(session);
  const wanted = sessions.filter(({ info }) => isWanted(info.id));
  if (!ids.some(isWanted) && options.session !== undefined) {
    throw new MmioError('not-found', `no recording is called ${options.session}`, {
      evidence: `there is: ${ids.join(', ') || 'none'}`,
      hint: `recordings are looked for in ${runDir()}: it may be another user's that you mean`,
    });
  }
  const entries: Entry[] = await Promise.all([
    ...wanted.map(entryOf),
    ...collected.filter(({ id }) => isWanted(id)).map(collectedEntryOf),
  ]);
  entries.push(...unreadable.filter(({ id }) => isWanted(id)).map(unreadableEntryOf));
  if (options.json === true) answer(JSON.stringify(entries, null, 2));
  else if (entries.length === 0) answer('no recordings');
  else answer(entries.map(formatEntry).join('\n'));
}

async function entryOf({ folder, info, alive }: ListedSession): Promise<Entry> {
  if (!alive) return { session: info.id, state: 'interrupted' };
  try {
    const status = (await askControl(folder.controlSocket, {
      request: 'status',
    })) as RecordingStatus;
    return { session: info.id, state: status.state, status };
  } catch (error) {
    // Its socket is not there yet, or not any more.
    if (error instanceof MmioError && error.code === 'closed') {
      return { session: info.id, state: 'starting or ending' };
    }
    if (error instanceof MmioError && error.code === 'timeout') {
      return { session: info.id, state: 'not answering', problem: describeError(error) };
    }
    throw error;
  }
}

function unreadableEntryOf({ id, error }: UnreadableSession): Entry {
  return { session: id, state: 'cannot be read', problem: describeError(error) };
}

async function collectedEntryOf({ id, controlSocket }: CollectedInfo): Promise<Entry> {
  const request = { request: 'status' } as const;
  let collected: CollectedStatus;
  try {
    collected = (await askControl(controlSocket, request)) as CollectedStatus;
  } catch (error) {
    if (!(error instanceof MmioError)) throw error;
    return { session: id, state: 'not answering', problem: describeError(error) };
  }
  const { peer, recorder } = collected;
  const state = peer === null ? 'waiting for its sender' : (recorder?.state ?? 'not answering');
  return { session: id, state, ...(recorder !== null && { status: recorder }), collected };
}

function formatCollected({ session, state, status, collected }: Entry): string[] {
  if (collected === undefined) return [];
  const { peer, problem, accesses, outputs } = collected;
  return [
    ...(status === undefined ? [`${session}  ${state}`] : []),
    `  from      ${peer ?? 'nobody now'}`,
    `  written   ${count(accesses)} accesses`,
    ...(problem === null ? [] : [`  problem   ${problem}`]),
    ...outputs.map((path) => `  output    ${path}`),
  ];
}

function formatEntry(entry: Entry): string {
  return [formatOwn(entry), ...formatCollected(entry)].filter((text) => text !== '').join('\n');
}

function formatOwn({ session, state, status, collected, problem }: Entry): string {
  if (problem !== undefined) return `${session}  ${state}: ${problem}`;
  if (collected !== undefined && status === undefined) return '';
  if (state === 'interrupted') return `${session}  ${state}: mmiobridge resume ${session}`;
  if (status === undefined) return `${session}  ${state}`;
  const { counters } = status;
  return [
    `${session}  ${state}  ${duration(status.elapsedSeconds)}`,
    `  accesses  ${count(counters.reads + counters.writes)} (${count(counters.reads)} reads, ${count(counters.writes)} writes)`,
    ...Object.entries(status.devices).map(([name, n]) => `  ${name.padEnd(8)}  ${count(n)}`),
    `  lost      ${counters.lossEvents === 0 ? '0' : `${counters.lost || 'an unknown number'}, in ${counted(counters.lossEvents, 'place')}`}`,
    `  spool     ${bytes(status.spoolBytes)} of ${bytes(status.spoolLimitBytes)}`,
    ...(status.stalled === null ? [] : [`  stalled   ${status.stalled}`]),
    `  QEMU      process ${status.qemuPid ?? 'unknown'}, recorder ${status.recorderPid}`,
    ...(collected === undefined ? status.outputs.map((path) => `  output    ${path}`) : []),
    ...formatCollector(status.collector),
  ].join('\n');
}

function formatCollector(collector: RemoteState | null): string[] {
  if (collector === null) return [];
  const { address, problem, acknowledgedBytes, waitingBytes } = collector;
  const how = problem === null ? 'connected' : problem;
  return [
    `  collector ${address}: ${how}; has ${bytes(acknowledgedBytes)}, ${bytes(waitingBytes)} wait here`,
  ];
}
