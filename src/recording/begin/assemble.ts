/** Puts the parts of a recording together, of a new one or of one that goes on. */
import { resolve as resolvePath } from 'node:path';
import type { UserLog } from '../../machine/argv-user.ts';
import type { SeenOfQemu } from '../../machine/coverage.ts';
import { LogAppender } from '../../machine/log-append.ts';
import { ourselves } from '../../machine/proc.ts';
import type { QemuProcess } from '../../machine/process.ts';
import type { Vm } from '../../machine/vm.ts';
import type { RecordingHeader } from '../../model/events.ts';
import { KvmDecoder } from '../../sources/kvm-tracepoints/decoder.ts';
import { PluginDecoder } from '../../sources/plugin/decoder.ts';
import { QemuLogDecoder } from '../../sources/qemu-log/decoder.ts';
import type { OutputFormat } from '../../sinks/index.ts';
import type { Marked } from '../../sinks/marked.ts';
import { Journal } from '../session/journal.ts';
import {
  kvmDecoder,
  kvmSource,
  openKvmTrace,
  traceInfo,
  type KvmSource,
} from '../source/kvm/source.ts';
import type { SpoolDecoder } from '../run/recorder.ts';
import type { KvmTrace } from '../source/kvm/trace.ts';
import { RunningRecording } from '../run/running-recording.ts';
import type { Notice } from '../../base/notice.ts';
import { learnDevices, lookAtMemory, optionNotes, requireSelected } from './device-queries.ts';
import { readVcpus } from '../../machine/vcpus.ts';
import { OutputSet } from '../../sinks/output-set.ts';
import type { PluginLink } from '../source/plugin/link.ts';
import { pluginWriter } from '../source/plugin/source.ts';
import type { PluginWriter } from '../source/plugin/writer.ts';
import { PcTap } from '../source/kvm/pc-tap.ts';
import type { OpenRemote, RemoteOutput, RemoteTarget } from '../session/remote.ts';
import type { SessionFolder } from '../session/session-folder.ts';
import type { Checkpoint, RecordSource, SessionInfo } from '../session/session-folder.ts';
import { Attribution } from '../../attribution/attribution.ts';
import type { Spool } from '../spool/spool.ts';
import { seenOfQemu } from '../source/trace-events.ts';
import { RecordingCounts } from '../../analysis/recording-counts.ts';
import { UserLogWriter } from '../run/user-log.ts';
import { detach, passingOn, forwardUserLog } from './detach.ts';

export interface RecordOptions {
  readonly outputs: readonly string[];
  readonly remote?: RemoteTarget | undefined;
  readonly openRemote?: OpenRemote | undefined;
  readonly format?: OutputFormat | undefined;
  readonly marks?: readonly Marked[] | undefined;
  readonly selection: readonly string[];
  readonly overflow: 'pause' | 'drop';
  /** Bytes on tmpfs; undefined: 1 GiB, or three quarters of what is free. */
  readonly spoolLimitBytes?: number | undefined;
  /** Program counters from KVM's tracepoints. */
  readonly pc: boolean;
  readonly source: RecordSource;
  /** Where QEMU may write; undefined: the session's own folder. */
  readonly spoolDir?: string | undefined;
  /** Of a QEMU that is started: interrupts of passed-through devices, too. */
  readonly interrupts: boolean;
  readonly notice: Notice;
  /** What QEMU would have written to its standard error, had its log been its own. */
  readonly onUserLog: (bytes: Uint8Array) => void;
}

/** What is told anew when a recording is gone on with. */
export type GoingOnOptions = Pick<RecordOptions, 'notice' | 'onUserLog' | 'openRemote'>;

/** A recording that has begun. */
export interface Started {
  readonly live: RunningRecording;
  readonly counts: RecordingCounts;
  readonly info: SessionInfo;
  readonly dir: SessionFolder;
  /** undefined where we did not start QEMU. */
  readonly child: QemuProcess | undefined;
  readonly attribution: Attribution;
}

const DEFAULT_SPOOL_LIMIT = 2 ** 30;

interface Beginning {
  readonly dir: SessionFolder;
  readonly spool: Spool;
  readonly vm: Vm;
  readonly header: RecordingHeader;
  readonly options: RecordOptions;
  readonly userLog: UserLog | undefined;
  /** What was logged before the recording began: only what of it is the user's counts. */
  readonly prelude?: string;
  readonly child: QemuProcess | undefined;
  /** One that had to begin before QEMU's log. */
  readonly trace?: KvmTrace | undefined;
  /** Where the plugin of a QEMU of ours is heard. */
  readonly link?: PluginLink | undefined;
  readonly info: Pick<
    SessionInfo,
    'qemu' | 'launched' | 'qmpAddress' | 'traceEvents' | 'restore' | 'plugin'
  >;
}

export async function begin(beginning: Beginning): Promise<Started> {
  const { dir, spool, header, options, userLog } = beginning;
  const free = await spool.freeBytes();
  const info: SessionInfo = {
    ...beginning.info,
    id: dir.id,
    recorder: ourselves(),
    spoolDir: spool.dir,
    header,
    selection: options.selection,
    outputs: options.outputs.map((path) => (path === '-' ? path : resolvePath(path))),
    remote: options.remote,
    format: options.format,
    marks: options.marks,
    overflow: options.overflow,
    spoolLimitBytes:
      options.spoolLimitBytes ?? Math.min(DEFAULT_SPOOL_LIMIT, Math.floor(0.75 * free)),
    userLog,
    pc: options.pc,
    source: options.source,
  };
  return assemble({ ...beginning, info, vm: beginning.vm, checkpoint: undefined });
}

interface Assembly {
  readonly dir: SessionFolder;
  readonly spool: Spool;
  readonly vm: Vm | undefined;
  readonly info: SessionInfo;
  readonly options: GoingOnOptions;
  readonly prelude?: string;
  readonly child: QemuProcess | undefined;
  readonly trace?: KvmTrace | undefined;
  readonly link?: PluginLink | undefined;
  readonly checkpoint: Checkpoint | undefined;
}

/** Puts the parts of a recording together, new or gone on with. */
export async function assemble(assembly: Assembly): Promise<Started> {
  const trace = assembly.trace ?? (await openKvmTrace(assembly.vm, assembly.info));
  try {
    const info = { ...assembly.info, kvm: traceInfo(trace, assembly.info) };
    return await assembleWith({ ...assembly, info }, trace);
  } catch (error) {
    trace?.close();
    throw error;
  }
}

async function assembleWith(assembly: Assembly, trace: KvmTrace | undefined): Promise<Started> {
  const { spool, vm, info, options, checkpoint } = assembly;
  const { header } = info;
  const userLog = await openUserLog(info, options, checkpoint);
  if (assembly.prelude !== undefined) await forwardUserLog(assembly.prelude, info, userLog);
  const isRecorded = (address: number) => attribution.devices.mappingAt(address) !== undefined;
  const decoder = decoderFor(info, checkpoint, isRecorded, userLog);
  const attribution = new Attribution(info.selection, decoder.targets, checkpoint?.attribution);
  const counts = new RecordingCounts(checkpoint?.counts);
  if (vm !== undefined) {
    attribution.vcpuOfThread = await readVcpus(vm.qmp);
    await learnDevices(vm.qmp, attribution.devices);
    requireSelected(attribution.devices, info.selection);
  }
  const notes = vm === undefined ? [] : await optionNotes(vm.qmp, attribution.devices);
  const position = checkpoint?.position ?? spool.position;
  decoder.beginSegment(position.segment, position.offset);
  decoder.stampedLines = checkpoint?.stampedLines ?? 0;
  decoder.unstampedLines = checkpoint?.unstampedLines ?? 0;
  for (const [name, count] of checkpoint?.otherLines ?? []) decoder.otherLines.set(name, count);

  const kvm =
    decoder instanceof KvmDecoder
      ? kvmSource({ ...assembly, trace, attribution, decoder, notice: options.notice })
      : undefined;
  const pc =
    trace &&
    info.source === 'log' &&
    new PcTap({
      trace,
      vcpuOfThread: attribution.vcpuOfThread,
      aligned: info.launched && checkpoint === undefined,
      start: header,
      isRecorded,
      counts: checkpoint?.pc,
    });

  const plugin =
    info.source === 'plugin'
      ? await pluginWriter({ ...assembly, notice: options.notice })
      : undefined;
  const remote = await openRemote(info, options, attribution, checkpoint);
  try {
    return await openAndStart(assembly, {
      remote,
      userLog,
      decoder,
      attribution,
      counts,
      notes,
      pc: pc || undefined,
      kvm,
      plugin,
    });
  } catch (error) {
    plugin?.stop();
    remote?.drop();
    throw error;
  }
}

function decoderFor(
  info: SessionInfo,
  checkpoint: Checkpoint | undefined,
  isRecorded: (address: number) => boolean,
  userLog: UserLogWriter | undefined,
): SpoolDecoder {
  if (info.source === 'kvm') return kvmDecoder(info, checkpoint, isRecorded);
  const { startSec: sec, startNs: ns } = info.header;
  const options = { start: { sec, ns }, ...passingOn(info, userLog) };
  if (info.source === 'log') return new QemuLogDecoder(options);
  return new PluginDecoder({ ...options, from: checkpoint?.plugin });
}

interface OpenParts {
  readonly remote: RemoteOutput | undefined;
  readonly userLog: UserLogWriter | undefined;
  readonly decoder: SpoolDecoder;
  readonly attribution: Attribution;
  readonly counts: RecordingCounts;
  readonly notes: readonly string[];
  readonly pc: PcTap | undefined;
  readonly kvm: KvmSource | undefined;
  readonly plugin: PluginWriter | undefined;
}

/** Opens the outputs, and begins. */
async function openAndStart(assembly: Assembly, parts: OpenParts): Promise<Started> {
  const { dir, spool, vm, info, options, checkpoint } = assembly;
  const { remote, userLog, decoder, attribution, counts, notes, pc, kvm, plugin } = parts;
  const { header } = info;
  let live: RunningRecording | undefined;
  const outputs = await OutputSet.open(info.outputs, {
    format: info.format,
    marks: info.marks,
    remote,
    onStall: (reason) => live?.onStall(reason),
    ...(checkpoint && { resumeAt: checkpoint.outputBytes }),
  });
  if (checkpoint === undefined) await outputs.begin(header);
  else outputs.resume(header, checkpoint.counts.tables);
  await dir.writeInfo(info);

  live = new RunningRecording({
    info,
    notice: options.notice,
    pausedByUs: checkpoint !== undefined && (await dir.isPaused()),
    detach: () => {
      pc?.logEnds();
      return detach(vm, info, options.notice, userLog);
    },
    remote,
    parts: {
      dir,
      header,
      spool,
      journal: new Journal(dir.journal, checkpoint?.journalTaken),
      decoder,
      attribution,
      outputs,
      counts,
      vm,
      userLog,
      pc,
      kvm,
      plugin,
      coverage: checkpoint?.coverage ?? [],
      notes: checkpoint?.notes ?? notes,
      refreshDevices: async () => {
        if (vm !== undefined) await learnIfThere(vm, attribution);
      },
      lookAtMemory: async () => {
        if (vm === undefined) return [];
        // Firmware has given it its interrupt line by now.
        await learnIfThere(vm, attribution);
        const seen = seenBy(info);
        return lookAtMemory(await vm.connected(), attribution.devices, seen);
      },
    },
  });
  await live.start();
  return { live, counts, info, dir, child: assembly.child, attribution };
}

/** What a recording sees of QEMU's own parts of devices. */
function seenBy({ source, traceEvents }: SessionInfo): SeenOfQemu {
  switch (source) {
    case 'kvm':
      return 'all';
    case 'plugin':
      return 'memory';
    case 'log':
      return seenOfQemu(traceEvents);
  }
}

async function openRemote(
  { remote, id, outputs }: SessionInfo,
  { openRemote: open, notice }: GoingOnOptions,
  attribution: Attribution,
  checkpoint: Checkpoint | undefined,
): Promise<RemoteOutput | undefined> {
  if (remote === undefined || open === undefined) return undefined;
  const devices = attribution.devices.selected.map(({ device }) => device.name);
  const resumeAt = checkpoint?.outputBytes[outputs.length];
  return open(remote, { id, devices, resumeAt, notice });
}

/**
 * Of a QEMU of ours the log is the user's file from its beginning. Another's log goes on growing:
 * what it would have written meanwhile is put to its end, after a resume perhaps a second's twice.
 */
async function openUserLog(
  info: SessionInfo,
  options: GoingOnOptions,
  checkpoint: Checkpoint | undefined,
): Promise<UserLogWriter | undefined> {
  const { userLog } = info;
  if (userLog === undefined) return undefined;
  if (info.launched || userLog.path === undefined) {
    return UserLogWriter.open(userLog, options.onUserLog, checkpoint?.userLogBytes);
  }
  const { notice: onProblem, onUserLog: otherwise } = options;
  const appender = new LogAppender(userLog.path, { otherwise, onProblem });
  return UserLogWriter.open({ ...userLog, path: undefined }, (bytes) => appender.write(bytes));
}

/** A VM that ends, or whose QMP is lost, has nothing to say; what it logged is still read. */
async function learnIfThere(vm: Vm, attribution: Attribution): Promise<void> {
  try {
    await learnDevices(await vm.connected(), attribution.devices);
  } catch (error) {
    if (vm.isAlive && vm.qmp.state === 'ready') throw error;
  }
}
