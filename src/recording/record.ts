/** Begins recordings: of a QEMU that we start, of one that runs, and of one that was interrupted. */
import { createReadStream } from 'node:fs';
import { access, chmod, chown, mkdir, readFile, realpath, rm } from 'node:fs/promises';
import { dirname, join, resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { TOOL } from '../base/version.ts';
import { planLaunch, type LaunchPlan } from '../machine/argv.ts';
import { scanArgv } from '../machine/argv-scan.ts';
import { valuesOf, type UserLog } from '../machine/argv-user.ts';
import { LogAppender, appendablePath } from '../machine/log-append.ts';
import { redirectLog, restoreLog } from '../machine/log-control.ts';
import { logTargetOf, type LogTarget } from '../machine/log-target.ts';
import { cmdlineOf, isAlive, openFilesOf, processOfThread } from '../machine/proc.ts';
import { launchQemu, type QemuProcess } from '../machine/process.ts';
import { readTraceState, restoreTraceState, setTraceEvents } from '../machine/trace-control.ts';
import { Vm } from '../machine/vm.ts';
import type { SessionHeader } from '../model/events.ts';
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
  runDir,
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
/** How often a QEMU that does not answer is asked again to let go of the recording. */
const DETACH_RETRY_MS = 500;
/** For how long QEMU is waited for to close a file that it has left. */
const CLOSE_LIMIT_MS = 2000;

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
  let spool: Spool | undefined;
  try {
    const plan = planRecording(argv, options, dir);
    spool = await createSpool(dir, options, await uidOf(plan.runAs));
    const start = wallClock();
    child = await launchQemu(plan, { stderrFile: dir.qemuStderr });
    const qmp = await child.orExit(connectPatiently(dir.qmpSocket, child.exited));
    const traceEvents = plan.argv.flatMap((word, i) =>
      word === '-trace' && i >= argv.length ? [plan.argv[i + 1] ?? ''] : [],
    );
    const qemu = processRef(child.pid);
    const address = dir.qmpSocket;
    const onProblem = options.notice;
    const vm = new Vm(qmp, { address, process: qemu, child, traceEvents, onProblem });
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
      userLog: userLogOf(plan, child.pid),
      child,
      info: { qemu, launched: true, qmpAddress: address, traceEvents, restore: undefined },
    });
    if (!plan.startPaused) await vm.resume();
    return started;
  } catch (error) {
    await child?.terminate(1000);
    await removeAll(dir, spool);
    throw error;
  }
}

/** Attaches to a QEMU that runs, by its QMP socket. Throws MmioError; QEMU is then as it was. */
export async function recordAttach(address: string, options: RecordOptions): Promise<Started> {
  for (const path of options.outputs) await requireFolder(path);
  const qmp = await QmpClient.connect(address);
  let dir: SessionDir | undefined;
  let spool: Spool | undefined;
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
    spool = await createSpool(dir, options, owner?.uid);
    const before = await readTraceState(qmp, ['*']);
    const log: LogTarget = owner === undefined ? { kind: 'none' } : logTargetOf(argv, owner.pid);
    const qemu = owner === undefined ? undefined : processRef(owner.pid);
    const onProblem = options.notice;
    const vm = new Vm(qmp, { address, process: qemu, traceEvents, onProblem });
    const ours = await readTraceState(qmp, traceEvents);
    const restore = {
      events: [...ours.keys()].map((name) => [name, before.get(name) ?? false] as const),
      log,
    };
    const header: SessionHeader = {
      ...headerBase(wallClock(), qmp),
      clock: stampsMessages(argv) ? 'qemu' : 'poll',
      argv,
    };
    const prelude = spool.currentPath;
    await redirectLog(qmp, prelude);
    undo.push(() => restoreLog(qmp, restore.log));
    undo.unshift(() => restoreTraceState(qmp, new Map(restore.events)));
    // One event goes on after the other: the recording begins where all are, with a new segment.
    await setTraceEvents(qmp, traceEvents, true);
    await redirectLog(qmp, spool.nextPath);
    spool = await Spool.reopen(spool.dir, { segment: 2, offset: 0 });
    await whenClosed(vm, prelude);
    // Whatever else QEMU logs (-d, or `log` and `trace-event` of its monitor) is somebody's.
    const userLog: UserLog = {
      path: owner === undefined ? undefined : appendablePath(log, owner.pid),
      patterns: [...before].filter(([, on]) => on).map(([name]) => name),
      logItems: true,
    };
    return await begin({
      dir,
      spool,
      vm,
      header,
      options,
      userLog,
      prelude,
      child: undefined,
      info: { qemu, launched: false, qmpAddress: address, traceEvents, restore },
    });
  } catch (error) {
    for (const step of undo) await step().catch(() => undefined);
    await qmp.close();
    await removeAll(dir, spool);
    throw error;
  }
}

/** A mistyped path is told before QEMU is touched. */
async function requireFolder(output: string): Promise<void> {
  if (output === '-') return;
  try {
    await access(dirname(resolvePath(output)));
  } catch (error) {
    throw new MmioError('io', `cannot write ${output}`, {
      evidence: messageOf(error),
      hint: 'name a file in a folder that exists and that you may write to',
      cause: error,
    });
  }
}

async function removeAll(dir: SessionDir | undefined, spool: Spool | undefined): Promise<void> {
  await spool?.close();
  if (spool !== undefined) await rm(spool.dir, { recursive: true, force: true });
  await dir?.remove();
}

/** Where a QEMU of ours would have logged, and what of it is the user's. */
function userLogOf(plan: LaunchPlan, pid: number): UserLog | undefined {
  const { userLog } = plan;
  if (userLog?.path === undefined) return userLog;
  return { ...userLog, path: resolvePath(userLog.path.replace('%d', String(pid))) };
}

interface Beginning {
  readonly dir: SessionDir;
  readonly spool: Spool;
  readonly vm: Vm;
  readonly header: SessionHeader;
  readonly options: RecordOptions;
  readonly userLog: UserLog | undefined;
  /** What was logged before the recording began: only what of it is the user's counts. */
  readonly prelude?: string;
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
  readonly prelude?: string;
  readonly child: QemuProcess | undefined;
  readonly checkpoint: Checkpoint | undefined;
}

/** Puts the parts of a recording together, new or gone on with. */
async function assemble(assembly: Assembly): Promise<Started> {
  const { dir, spool, vm, info, options, checkpoint } = assembly;
  const { header } = info;
  const userLog = await openUserLog(info, options, checkpoint);
  if (assembly.prelude !== undefined) await passOn(assembly.prelude, info, userLog);
  const decoder = new QemuLogDecoder({
    start: { sec: header.startSec, ns: header.startNs },
    ...passingOn(info, userLog),
  });
  const session = new Session(info.selection, decoder.targets, checkpoint?.session);
  const statistics = new Statistics(checkpoint);
  if (vm !== undefined) {
    session.vcpuOfThread = await readVcpus(vm.qmp);
    await learnDevices(vm.qmp, session.devices);
    requireSelected(session.devices, info.selection);
  }
  const position = checkpoint?.position ?? spool.position;
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
    detach: () => detach(vm, info, options.notice, userLog),
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
        if (vm !== undefined) await learnIfThere(vm, session);
      },
      lookAtMemory: async () => {
        if (vm === undefined) return [];
        // Firmware has given it its interrupt line by now.
        await learnIfThere(vm, session);
        return lookAtMemory(await vm.connected(), session.devices);
      },
    },
  });
  await live.start();
  return { live, statistics, info, dir, child: assembly.child, session };
}

/**
 * Of a QEMU of ours the log is the user's file from its beginning. Another's log goes on growing:
 * what it would have written meanwhile is put to its end, after a resume perhaps a second's twice.
 */
async function openUserLog(
  info: SessionInfo,
  options: Pick<RecordOptions, 'notice' | 'onUserLog'>,
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
async function learnIfThere(vm: Vm, session: Session): Promise<void> {
  try {
    await learnDevices(await vm.connected(), session.devices);
  } catch (error) {
    if (vm.isAlive && vm.qmp.state === 'ready') throw error;
  }
}

/**
 * Takes a recording off its QEMU: ours is ended, another's is put back as it was. Without QMP
 * nothing can keep QEMU from logging into the spool, so that the recording goes on until it answers.
 */
async function detach(
  vm: Vm | undefined,
  info: SessionInfo,
  notice: Notice,
  userLog: UserLogWriter | undefined,
): Promise<void> {
  if (vm === undefined) return;
  if (info.launched) {
    await vm.quit();
    return;
  }
  const { restore } = info;
  if (restore === undefined) return;
  const afters: string[] = [];
  for (let told = false; vm.isAlive; told = true) {
    try {
      // One event goes off after the other: the recording ends where all are still on.
      const after = join(info.spoolDir, `after-${afters.length + 1}`);
      afters.push(after);
      await vm.logInto(after);
      await putBack(vm, restore, notice);
      break;
    } catch (error) {
      const mayAnswer = error instanceof MmioError && error.code === 'timeout';
      if (vm.qmp.state === 'ready' && !mayAnswer) {
        notice(`QEMU is not quite as it was: ${wordsOf(error)}`);
        break;
      }
      if (!told && vm.isAlive) {
        notice(
          `QEMU cannot be told to end the recording, which goes on until it can: ${wordsOf(error)}`,
        );
      }
      await Promise.race([sleep(DETACH_RETRY_MS), vm.ended]);
    }
  }
  await whenClosed(vm, info.spoolDir);
  for (const after of afters) await passOn(after, info, userLog);
}

/** A vCPU may be in the middle of a line: QEMU closes a file (or all below a folder) when none is. */
async function whenClosed(vm: Vm, path: string): Promise<void> {
  const { process } = vm;
  const deadline = Date.now() + CLOSE_LIMIT_MS;
  const isIt = (open: string) => open === path || open.startsWith(`${path}/`);
  while (process !== undefined && Date.now() < deadline) {
    if (openFilesOf(process.pid)?.some(isIt) !== true) break;
    await sleep(5);
  }
}

/** What a decoder has to do with lines that are the user's. */
function passingOn(info: SessionInfo, userLog: UserLogWriter | undefined) {
  if (userLog === undefined) return {};
  const wants = (info.userLog?.patterns.length ?? 0) > 0;
  return {
    onOtherLine: (line: Uint8Array) => userLog.line(line),
    ...(wants && { alsoOther: (name: string) => userLog.wantsAlso(name) }),
  };
}

/** Gives the user what is theirs of a file of QEMU's log that is no part of the recording. */
async function passOn(
  path: string,
  info: SessionInfo,
  userLog: UserLogWriter | undefined,
): Promise<void> {
  if (userLog === undefined) return;
  const decoder = new QemuLogDecoder(passingOn(info, userLog));
  const skip = () => {
    while (decoder.next() !== undefined);
  };
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      decoder.feed(chunk);
      skip();
    }
  } catch (error) {
    // QEMU did not get as far as making it.
    if (systemCodeOf(error) !== 'ENOENT') throw error;
  }
  decoder.finish();
  skip();
  await userLog.flush();
}

async function putBack(
  vm: Vm,
  { events, log }: NonNullable<SessionInfo['restore']>,
  notice: Notice,
): Promise<void> {
  const qmp = await vm.connected();
  await restoreTraceState(qmp, new Map(events));
  const restored = await restoreLog(qmp, log);
  if (restored.note !== undefined) notice(restored.note);
}

function wordsOf(error: unknown): string {
  const evidence = error instanceof MmioError ? error.evidence : undefined;
  return evidence === undefined ? messageOf(error) : `${messageOf(error)} (${evidence})`;
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
  try {
    // It may have died while it took itself off QEMU. Before the guard begins, which does the same.
    if (vm?.holdsOpen(spool.currentPath) === false) {
      await vm.logInto(spool.nextPath);
      spool.advanceWriter();
    }
    if (!(await dir.isDropping())) await vm?.trace(true);
    return await assemble({ dir, spool, vm, info, options, child: undefined, checkpoint });
  } catch (error) {
    // QEMU talks to one at a time, and the connection would keep this process.
    await vm?.qmp.close();
    throw error;
  }
}

async function reconnect(info: SessionInfo, notice: Notice): Promise<Vm | undefined> {
  const { qemu } = info;
  if (qemu !== undefined && !isAlive(qemu.pid, qemu.startTime)) {
    notice('QEMU has ended meanwhile: what it left in the spool is written down');
    return undefined;
  }
  const qmp = await QmpClient.connect(info.qmpAddress);
  const { qmpAddress: address, traceEvents } = info;
  return new Vm(qmp, { address, process: qemu, traceEvents, onProblem: notice });
}

async function createSpool(
  dir: SessionDir,
  options: RecordOptions,
  uid: number | undefined,
): Promise<Spool> {
  const path = options.spoolDir === undefined ? dir.spool : spoolIn(options.spoolDir, dir);
  await mkdir(dirname(path), { recursive: true });
  await mkdir(path, { recursive: true, mode: 0o700 });
  const us = process.getuid?.() ?? 0;
  if (uid !== undefined && uid !== us && us === 0) {
    await chown(path, uid, -1);
    // QEMU has to get there, whatever our umask says; what lies beside it has modes of its own.
    if (options.spoolDir === undefined)
      for (const way of [runDir(), dir.path]) await chmod(way, 0o711);
  }
  // As /proc names it, where we look whether QEMU has closed a segment.
  return Spool.create(await realpath(path));
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
async function connectPatiently(socket: string, exited: Promise<unknown>): Promise<QmpClient> {
  const deadline = Date.now() + CONNECT_LIMIT_MS;
  let gone = false;
  void exited.then(() => (gone = true));
  for (;;) {
    try {
      return await QmpClient.connect(socket);
    } catch (error) {
      const early =
        error instanceof MmioError && (error.code === 'not-found' || error.code === 'refused');
      if (!early || gone || Date.now() > deadline) throw error;
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
