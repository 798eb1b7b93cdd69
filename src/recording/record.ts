/** Begins recordings: of a QEMU that we start, of one that runs, and of one that was interrupted. */
import { chown, readFile } from 'node:fs/promises';
import { join, resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError } from '../base/errors.ts';
import { TOOL } from '../base/version.ts';
import { planLaunch, type LaunchPlan } from '../machine/argv.ts';
import { scanArgv } from '../machine/argv-scan.ts';
import { valuesOf, type UserLog } from '../machine/argv-user.ts';
import { redirectLog, restoreLog } from '../machine/log-control.ts';
import { logTargetOf } from '../machine/log-target.ts';
import { cmdlineOf, isAlive, openFilesOf, processOfThread } from '../machine/proc.ts';
import { launchQemu, type QemuProcess } from '../machine/process.ts';
import { readTraceState, restoreTraceState, setTraceEvents } from '../machine/trace-control.ts';
import { Vm } from '../machine/vm.ts';
import type { SessionHeader } from '../model/events.ts';
import { Tables } from '../model/tables.ts';
import { QmpClient } from '../qmp/client.ts';
import { QemuLogDecoder } from '../sources/qemu-log/decoder.ts';
import type { OutputFormat } from '../sinks/index.ts';
import { Journal } from './journal.ts';
import { LiveRecording, type Notice } from './live.ts';
import { learnDevices, lookAtMemory, readVcpus, requireSelected } from './look.ts';
import { OutputSet } from './output-set.ts';
import {
  SessionDir,
  ourselves,
  processRef,
  type Checkpoint,
  type SessionInfo,
} from './session-dir.ts';
import { Session } from './session.ts';
import { Spool } from './spool.ts';
import { Statistics } from './statistics.ts';
import { eventsForArgv, eventsForDevices } from './trace-events.ts';
import { UserLogWriter } from './user-log.ts';

export interface RecordOptions {
  readonly outputs: readonly string[];
  readonly format?: OutputFormat | undefined;
  readonly selection: readonly string[];
  readonly overflow: 'pause' | 'drop';
  /** Bytes on tmpfs; undefined: 1 GiB, or three quarters of what is free. */
  readonly spoolLimitBytes?: number | undefined;
  /** Where QEMU may write; undefined: the session's own folder. */
  readonly spoolDir?: string | undefined;
  readonly notice: Notice;
  /** What QEMU would have written to its standard error, had its log been its own. */
  readonly onUserLog: (bytes: Uint8Array) => void;
}

/** A recording that has begun. */
export interface Started {
  readonly live: LiveRecording;
  readonly statistics: Statistics;
  readonly info: SessionInfo;
  readonly dir: SessionDir;
  /** undefined where we did not start QEMU. */
  readonly child: QemuProcess | undefined;
  readonly session: Session;
}

const DEFAULT_SPOOL_LIMIT = 2 ** 30;
const CONNECT_RETRY_MS = 20;
const CONNECT_LIMIT_MS = 15_000;

/** The launch, without doing it: for `--dry-run`, with the place of the session left open. */
export function planRecording(
  argv: readonly string[],
  options: { readonly selection: readonly string[]; readonly spoolDir?: string | undefined },
  dir = new SessionDir('SESSION'),
): LaunchPlan {
  const spoolDir = options.spoolDir === undefined ? dir.spool : spoolIn(options.spoolDir, dir);
  const needs = { qmpSocket: dir.qmpSocket, logFile: join(spoolDir, '000001') };
  const { devices } = planLaunch(argv, { ...needs, traceEvents: [] });
  return planLaunch(argv, { ...needs, traceEvents: eventsForArgv(devices, options.selection) });
}

function spoolIn(spoolDir: string, dir: SessionDir): string {
  return join(resolvePath(spoolDir), `mmiobridge-${dir.id}`);
}

/** Starts QEMU and records it from its first instruction. Throws MmioError; then nothing is left. */
export async function recordLaunch(
  argv: readonly string[],
  options: RecordOptions,
): Promise<Started> {
  planRecording(argv, options);
  const dir = await SessionDir.create();
  let child: QemuProcess | undefined;
  try {
    const plan = planRecording(argv, options, dir);
    const spool = await createSpool(dir, options, await uidOf(plan.runAs));
    const start = wallClock();
    child = await launchQemu(plan, { stderrFile: dir.qemuStderr });
    const qmp = await child.orExit(connectPatiently(dir.qmpSocket));
    const traceEvents = plan.argv.flatMap((word, i) =>
      word === '-trace' && i >= argv.length ? [plan.argv[i + 1] ?? ''] : [],
    );
    const qemu = processRef(child.pid);
    const vm = new Vm(qmp, { process: qemu, child, traceEvents });
    const header: SessionHeader = {
      ...headerBase(start, qmp),
      clock: 'qemu',
      argv: plan.argv,
    };
    const started = await begin({
      dir,
      spool,
      vm,
      header,
      options,
      userLog: plan.userLog,
      child,
      info: { qemu, launched: true, qmpAddress: dir.qmpSocket, traceEvents, restore: undefined },
    });
    if (!plan.startPaused) await vm.resume();
    return started;
  } catch (error) {
    await child?.terminate(1000);
    await dir.remove();
    throw error;
  }
}

/** Attaches to a QEMU that runs, by its QMP socket. Throws MmioError; QEMU is then as it was. */
export async function recordAttach(address: string, options: RecordOptions): Promise<Started> {
  const qmp = await QmpClient.connect(address);
  let dir: SessionDir | undefined;
  const undo: (() => Promise<unknown>)[] = [];
  try {
    const vcpus = await readVcpus(qmp);
    const [thread = 0] = vcpus.keys();
    const owner = processOfThread(thread);
    const argv = owner === undefined ? [] : cmdlineOf(owner.pid);
    const selecting = new Session(options.selection, []);
    await learnDevices(qmp, selecting.devices);
    requireSelected(selecting.devices, options.selection);
    const traceEvents = eventsForDevices(selecting.devices.selected);

    dir = await SessionDir.create();
    const spool = await createSpool(dir, options, owner?.uid);
    const before = await readTraceState(qmp, ['*']);
    const log = owner === undefined ? undefined : logTargetOf(argv, owner.pid);
    const qemu = owner === undefined ? undefined : processRef(owner.pid);
    const vm = new Vm(qmp, { process: qemu, traceEvents });
    const ours = await readTraceState(qmp, traceEvents);
    const restore = {
      events: [...ours.keys()].map((name) => [name, before.get(name) ?? false] as const),
      log: log ?? ({ kind: 'none' } as const),
    };
    const header: SessionHeader = {
      ...headerBase(wallClock(), qmp),
      clock: stampsMessages(argv) ? 'qemu' : 'poll',
      argv,
    };
    await redirectLog(qmp, spool.currentPath);
    undo.push(() => restoreLog(qmp, restore.log));
    undo.unshift(() => restoreTraceState(qmp, new Map(restore.events)));
    const theirs = [...before].filter(([, on]) => on).map(([name]) => name);
    const userLog: UserLog | undefined =
      theirs.length === 0
        ? undefined
        : {
            path: log?.kind === 'file' ? log.path : undefined,
            patterns: theirs,
            logItems: false,
          };
    const started = await begin({
      dir,
      spool,
      vm,
      header,
      options,
      userLog,
      child: undefined,
      info: { qemu, launched: false, qmpAddress: address, traceEvents, restore },
    });
    await setTraceEvents(qmp, traceEvents, true);
    return started;
  } catch (error) {
    for (const step of undo) await step().catch(() => undefined);
    await qmp.close();
    await dir?.remove();
    throw error;
  }
}

interface Beginning {
  readonly dir: SessionDir;
  readonly spool: Spool;
  readonly vm: Vm;
  readonly header: SessionHeader;
  readonly options: RecordOptions;
  readonly userLog: UserLog | undefined;
  readonly child: QemuProcess | undefined;
  readonly info: Pick<SessionInfo, 'qemu' | 'launched' | 'qmpAddress' | 'traceEvents' | 'restore'>;
}

async function begin(beginning: Beginning): Promise<Started> {
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
    format: options.format,
    overflow: options.overflow,
    spoolLimitBytes:
      options.spoolLimitBytes ?? Math.min(DEFAULT_SPOOL_LIMIT, Math.floor(0.75 * free)),
    userLog,
  };
  return assemble({ ...beginning, info, vm: beginning.vm, checkpoint: undefined });
}

interface Assembly {
  readonly dir: SessionDir;
  readonly spool: Spool;
  readonly vm: Vm | undefined;
  readonly info: SessionInfo;
  readonly options: Pick<RecordOptions, 'notice' | 'onUserLog'>;
  readonly child: QemuProcess | undefined;
  readonly checkpoint: Checkpoint | undefined;
}

/** Puts the parts of a recording together, new or gone on with. */
async function assemble(assembly: Assembly): Promise<Started> {
  const { dir, spool, vm, info, options, checkpoint } = assembly;
  const { header } = info;
  const userLog =
    info.userLog === undefined
      ? undefined
      : await UserLogWriter.open(info.userLog, options.onUserLog, checkpoint?.userLogBytes);
  const decoder = new QemuLogDecoder({
    start: { sec: header.startSec, ns: header.startNs },
    ...(userLog && {
      onOtherLine: (line: Uint8Array) => userLog.line(line),
      ...(info.userLog?.patterns.length && {
        alsoOther: (name: string) => userLog.wantsAlso(name),
      }),
    }),
  });
  const session = new Session(info.selection, decoder.targets, checkpoint?.session);
  const statistics = new Statistics(new Tables(checkpoint?.tables));
  if (vm !== undefined) {
    session.vcpuOfThread = await readVcpus(vm.qmp);
    await learnDevices(vm.qmp, session.devices);
    requireSelected(session.devices, info.selection);
  }
  const position = checkpoint?.position ?? { segment: 1, offset: 0 };
  decoder.beginSegment(position.segment, position.offset);
  decoder.damagedLines = checkpoint?.damagedLines ?? 0;
  decoder.unstampedLines = checkpoint?.unstampedLines ?? 0;
  for (const [name, count] of checkpoint?.otherLines ?? []) decoder.otherLines.set(name, count);

  let live: LiveRecording | undefined;
  const outputs = await OutputSet.open(info.outputs, {
    format: info.format,
    onStall: (reason) => live?.onStall(reason),
    ...(checkpoint && { resumeAt: checkpoint.outputBytes }),
  });
  if (checkpoint === undefined) await outputs.begin(header);
  else outputs.resume(header, checkpoint.tables);
  await dir.writeInfo(info);

  live = new LiveRecording({
    info,
    notice: options.notice,
    pausedByUs: checkpoint !== undefined && (await dir.isPaused()),
    detach: () => detach(vm, info, options.notice),
    parts: {
      dir,
      header,
      spool,
      journal: new Journal(dir.journal, checkpoint?.journalTaken),
      decoder,
      session,
      outputs,
      statistics,
      vm,
      userLog,
      coverage: checkpoint?.coverage ?? [],
      refreshDevices: async () => {
        if (vm !== undefined) await learnDevices(vm.qmp, session.devices);
      },
      lookAtMemory: async () => (vm === undefined ? [] : lookAtMemory(vm.qmp, session.devices)),
    },
  });
  await live.start();
  return { live, statistics, info, dir, child: assembly.child, session };
}

/** Takes a recording off its QEMU: ours is ended, another's is put back as it was. */
async function detach(vm: Vm | undefined, info: SessionInfo, notice: Notice): Promise<void> {
  if (vm === undefined) return;
  if (info.launched) {
    await vm.quit();
    return;
  }
  if (info.restore === undefined) return;
  await restoreTraceState(vm.qmp, new Map(info.restore.events));
  const restored = await restoreLog(vm.qmp, info.restore.log);
  if (restored.note !== undefined) notice(restored.note);
  // A vCPU may be in the middle of a line: the file is closed when none is.
  const { process } = vm;
  const deadline = Date.now() + 2000;
  const isOurs = (path: string) => path.startsWith(info.spoolDir);
  while (process !== undefined && Date.now() < deadline) {
    if (openFilesOf(process.pid)?.some(isOurs) !== true) break;
    await sleep(5);
  }
}

/**
 * Goes on with a recording whose recorder was killed. Throws MmioError `refused` if it still runs,
 * `not-found` if there is none.
 */
export async function resumeRecording(
  id: string,
  options: Pick<RecordOptions, 'notice' | 'onUserLog'>,
): Promise<Started> {
  const dir = new SessionDir(id);
  const before = await dir.readInfo();
  if (isAlive(before.recorder.pid, before.recorder.startTime)) {
    throw new MmioError('refused', `${id} is being recorded`, {
      evidence: `process ${before.recorder.pid} runs`,
      hint: '`mmiobridge status` shows it',
    });
  }
  if (before.outputs.includes('-')) {
    throw new MmioError('refused', 'a recording to standard output cannot be gone on with', {
      evidence: `outputs: ${before.outputs.join(', ')}`,
      hint: `what is left of it lies in ${before.spoolDir}: convert it`,
    });
  }
  const checkpoint = await dir.readCheckpoint();
  const info: SessionInfo = { ...before, recorder: ourselves() };
  const spool = await Spool.reopen(info.spoolDir, checkpoint.position);
  const vm = await reconnect(info, options.notice);
  await dir.removeControlSocket();
  const started = await assemble({ dir, spool, vm, info, options, child: undefined, checkpoint });
  // It may have died while it dropped.
  await vm?.trace(true);
  return started;
}

async function reconnect(info: SessionInfo, notice: Notice): Promise<Vm | undefined> {
  const { qemu } = info;
  if (qemu !== undefined && !isAlive(qemu.pid, qemu.startTime)) {
    notice('QEMU has ended meanwhile: what it left in the spool is written down');
    return undefined;
  }
  const qmp = await QmpClient.connect(info.qmpAddress);
  return new Vm(qmp, { process: qemu, traceEvents: info.traceEvents });
}

async function createSpool(
  dir: SessionDir,
  options: RecordOptions,
  uid: number | undefined,
): Promise<Spool> {
  const path = options.spoolDir === undefined ? dir.spool : spoolIn(options.spoolDir, dir);
  const spool = await Spool.create(path);
  const us = process.getuid?.() ?? 0;
  if (uid !== undefined && uid !== us && us === 0) await chown(path, uid, -1);
  return spool;
}

/** User id of a name, for QEMU's -runas; undefined where there is none to look up. */
async function uidOf(user: string | undefined): Promise<number | undefined> {
  if (user === undefined) return undefined;
  if (/^\d+(:|$)/.test(user)) return parseInt(user, 10);
  const passwd = await readFile('/etc/passwd', 'utf8');
  const line = passwd.split('\n').find((entry) => entry.startsWith(`${user}:`));
  return line === undefined ? undefined : Number(line.split(':')[2]);
}

/** Waits for a QEMU that has just been started to listen. */
async function connectPatiently(socket: string): Promise<QmpClient> {
  const deadline = Date.now() + CONNECT_LIMIT_MS;
  for (;;) {
    try {
      return await QmpClient.connect(socket);
    } catch (error) {
      const early =
        error instanceof MmioError && (error.code === 'not-found' || error.code === 'refused');
      if (!early || Date.now() > deadline) throw error;
      await sleep(CONNECT_RETRY_MS);
    }
  }
}

function wallClock(): { readonly startSec: number; readonly startNs: number } {
  const nowMs = Date.now();
  const startSec = Math.floor(nowMs / 1000);
  return { startSec, startNs: (nowMs - startSec * 1000) * 1_000_000 };
}

function headerBase(
  start: { readonly startSec: number; readonly startNs: number },
  qmp: QmpClient,
) {
  return {
    ...start,
    tool: TOOL,
    source: 'qemu-log' as const,
    textBaseSec: 0,
    qemuVersion: qmp.version,
  };
}

function stampsMessages(argv: readonly string[]): boolean {
  if (argv.length === 0) return false;
  const last = valuesOf(scanArgv(argv).options, 'msg').at(-1) ?? '';
  return /(^|,)timestamp(=on|=yes|=true)?(,|$)/.test(last);
}
