/** Puts the parts of a recording together, of a new one or of one that is resumed. */
import { resolve as resolvePath } from 'node:path';
import { MmioError } from '../../base/errors.ts';
import { fileIdOf } from '../../base/same-file.ts';
import { bytes } from '../../base/format.ts';
import type { RecordingCounts } from '../../analysis/recording-counts.ts';
import type { Attribution } from '../../attribution/attribution.ts';
import { LogAppender } from '../../machine/log-append.ts';
import { ourselves } from '../../machine/proc.ts';
import type { QemuProcess } from '../../machine/process.ts';
import { readVcpus } from '../../machine/vcpus.ts';
import type { Vm } from '../../machine/vm.ts';
import { OutputSet } from '../../sinks/output-set.ts';
import { RunningRecording } from '../run/running-recording.ts';
import { restoreState, type Checkpoint } from '../session/checkpoint.ts';
import type { SessionInfo } from '../session/info.ts';
import { Journal } from '../session/journal.ts';
import type { RemoteOutput } from '../session/remote.ts';
import { findSessions, type SessionFolder } from '../session/session-folder.ts';
import { UserLogWriter } from '../session/user-log.ts';
import type { RecordingSource, SourceBeginning, SourceParts } from '../source/recording-source.ts';
import type { Spool } from '../spool/spool.ts';
import {
  learnDevices,
  learnPatiently,
  lookAtMemory,
  NOTHING_KNOWN,
  optionFacts,
  requireSelected,
} from './device-queries.ts';
import type { RecordOptions, ResumeOptions } from './options.ts';

/** A recording that has begun. */
export interface Started {
  readonly recording: RunningRecording;
  readonly counts: RecordingCounts;
  readonly info: SessionInfo;
  readonly folder: SessionFolder;
  /** undefined where we did not start QEMU. */
  readonly child: QemuProcess | undefined;
  /** undefined: it is gone, and what it left is written. */
  readonly vm: Vm | undefined;
}

/**
 * What a recording will be. Written down before QEMU is touched: of a recorder that is killed from
 * then on `status` and `resume` know.
 */
export async function announce(
  folder: SessionFolder,
  spool: Spool,
  options: RecordOptions,
  known: Pick<SessionInfo, 'qemu' | 'launched' | 'qmpAddress' | 'header' | 'sourceInfo'>,
): Promise<SessionInfo> {
  const info: SessionInfo = {
    id: folder.id,
    ...known,
    recorder: ourselves(),
    spoolDir: spool.dir,
    selection: options.selection,
    outputs: options.outputs.map((path) => (path === '-' ? path : resolvePath(path))),
    remote: options.remote,
    format: options.format,
    textExtra: options.textExtra,
    overflow: options.overflow,
    markRegister: options.markRegister,
    spoolLimitBytes: limitFor(spool.dir, await spool.freeBytes(), options.spoolLimitBytes),
    userLog: undefined,
    source: options.source,
  };
  await requireOutputsOurs(info);
  await folder.writeInfo(info);
  await folder.keepBallast();
  return info;
}

/** Throws MmioError `refused` for an output that another recording writes, or will go on with. */
async function requireOutputsOurs({ outputs }: SessionInfo): Promise<void> {
  const ours = new Map(outputs.map((path) => [fileIdOf(path, 1) ?? path, path]));
  for (const { info, alive } of (await findSessions()).sessions) {
    const theirs = info.outputs.find((path) => path !== '-' && ours.has(fileIdOf(path, 1) ?? path));
    if (theirs === undefined) continue;
    throw new MmioError('refused', `${theirs} belongs to another recording`, {
      evidence: `${info.id}, which ${alive ? 'is being made' : 'was interrupted'}`,
      hint: alive
        ? 'give this output another name'
        : `mmiobridge resume ${info.id} goes on with it; or give this output another name`,
    });
  }
}

const DEFAULT_SPOOL_LIMIT = 2 ** 30;
/** The spool's file system has at least so much room, or nothing is begun. */
const MIN_ROOM_BYTES = 16 * 2 ** 20;

/** How much the spool may hold. Throws MmioError `refused` where there is no room for that. */
function limitFor(dir: string, free: number, wanted: number | undefined): number {
  const needed = Math.max(MIN_ROOM_BYTES, wanted ?? 0);
  if (free >= needed) return wanted ?? Math.min(DEFAULT_SPOOL_LIMIT, Math.floor(0.75 * free));
  const why = needed === wanted ? '--spool-limit' : 'the least for a recording';
  throw new MmioError('refused', 'there is too little room for the spool', {
    evidence: `${dir} has ${bytes(free)} left; ${why} is ${bytes(needed)}`,
    hint: 'make room there, or name another tmpfs folder with --spool DIR',
  });
}

interface Beginning {
  readonly folder: SessionFolder;
  readonly spool: Spool;
  readonly vm: Vm;
  readonly info: SessionInfo;
  readonly options: RecordOptions;
  readonly source: SourceBeginning;
  readonly child: QemuProcess | undefined;
}

/** Begins a new recording. */
export async function begin(beginning: Beginning): Promise<Started> {
  const { source } = beginning;
  const info = { ...beginning.info, userLog: source.userLog };
  const open = (parts: SourceParts) => source.open(parts);
  return assemble({ ...beginning, info, open, checkpoint: undefined });
}

interface Assembly {
  readonly folder: SessionFolder;
  readonly spool: Spool;
  /** undefined: QEMU is gone. */
  readonly vm: Vm | undefined;
  /** Without what the source keeps, which it knows when it is open. */
  readonly info: SessionInfo;
  readonly options: ResumeOptions;
  readonly child: QemuProcess | undefined;
  readonly open: (parts: SourceParts) => Promise<RecordingSource>;
  /** Of a recording that is resumed. */
  readonly checkpoint: Checkpoint | undefined;
}

export async function assemble(assembly: Assembly): Promise<Started> {
  const { folder, spool, vm, options, checkpoint, child } = assembly;
  const { header, selection, launched, overflow } = assembly.info;
  const { notice } = options;
  const userLog = await openUserLog(assembly.info, options, checkpoint);
  const before = restoreState(selection, checkpoint);
  const { attribution, counts } = before;
  attribution.markRegister = assembly.info.markRegister;
  const { devices } = attribution;
  if (vm !== undefined) {
    attribution.vcpuOfThread = await readVcpus(vm.qmp);
    await learnDevices(vm.qmp, devices);
    requireSelected(devices, selection);
  }
  const facts = checkpoint ?? (vm && (await optionFacts(vm.qmp, devices))) ?? NOTHING_KNOWN;
  const state = { ...before, notes: facts.notes, trapped: facts.trapped };

  const source = await assembly.open({
    folder,
    spool,
    vm,
    launched,
    header,
    attribution,
    overflow,
    userLog,
    notice,
  });
  let remote: RemoteOutput | undefined;
  let recording: RunningRecording | undefined;
  try {
    const { segment, offset } = checkpoint?.position ?? spool.position;
    source.decoder.beginSegment(segment, offset);
    attribution.targets = source.decoder.targets;
    const info = { ...assembly.info, sourceInfo: source.info };
    remote = await openRemote(info, options, attribution, checkpoint);

    const outputs = await OutputSet.open(info.outputs, {
      format: info.format,
      textExtra: info.textExtra,
      remote,
      onStall: (reason) => {
        if (recording !== undefined) recording.onStall(reason);
        else if (reason !== undefined) notice(`waiting for room: ${reason}`);
      },
      ...(options.signal && { signal: options.signal }),
      ...(checkpoint && { resumeAt: checkpoint.outputBytes }),
    });
    if (checkpoint === undefined) await outputs.begin(header);
    else outputs.resume(header, checkpoint.counts.tables, checkpoint.leftOut);
    await folder.writeInfo(info);

    recording = new RunningRecording({
      info,
      notice,
      pausedByUs: checkpoint !== undefined && (await folder.isPaused()),
      remote,
      parts: {
        folder,
        header,
        spool,
        journal: new Journal(folder.journal, checkpoint?.journalTaken),
        source,
        state,
        outputs,
        vm,
        userLog,
        notice,
        observe: options.observe,
        launched,
        refreshDevices: async () => {
          if (vm?.isEnding === false) await learnPatiently(vm, devices, notice);
        },
        lookAtMemory: async (what) => {
          if (vm === undefined) return [];
          // Firmware has given it its interrupt line by now.
          if (what === 'devices') await learnPatiently(vm, devices, notice);
          return lookAtMemory(await vm.connected(), devices, source.seen);
        },
      },
    });
    await recording.start();
    return { recording, counts, info, folder, child, vm };
  } catch (error) {
    await recording?.discard();
    source.stop();
    remote?.drop();
    throw error;
  }
}

async function openRemote(
  { remote, id, outputs }: SessionInfo,
  { openRemote: open, notice }: ResumeOptions,
  { devices }: Attribution,
  checkpoint: Checkpoint | undefined,
): Promise<RemoteOutput | undefined> {
  if (remote === undefined || open === undefined) return undefined;
  const names = devices.selected.map(({ device }) => device.name);
  const resumeAt = checkpoint?.outputBytes[outputs.length];
  return open(remote, { id, devices: names, resumeAt, notice });
}

/**
 * Of a QEMU of ours the log is the user's file from its beginning. Another's log goes on growing:
 * what it would have written meanwhile is put to its end, after a resume perhaps a second's twice.
 */
async function openUserLog(
  { userLog, launched }: SessionInfo,
  { notice, onUserLog }: ResumeOptions,
  checkpoint: Checkpoint | undefined,
): Promise<UserLogWriter | undefined> {
  if (userLog === undefined) return undefined;
  if (launched || userLog.path === undefined) {
    return UserLogWriter.open(userLog, onUserLog, checkpoint?.userLogBytes);
  }
  const appender = new LogAppender(userLog.path, { otherwise: onUserLog, onProblem: notice });
  return UserLogWriter.open({ ...userLog, path: undefined }, (lines) => appender.write(lines));
}
