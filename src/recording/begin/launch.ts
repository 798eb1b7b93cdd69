/** Starts a QEMU and records it from its first instruction. */
import { readFile } from 'node:fs/promises';
import { join, resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError } from '../../base/errors.ts';
import { findTraceDir } from '../../host/tracefs/trace-dir.ts';
import { planLaunch, type LaunchPlan } from '../../machine/argv.ts';
import { findPlugin, type Plugin } from '../../machine/plugin.ts';
import type { UserLog } from '../../machine/argv-user.ts';
import { processRef } from '../../machine/proc.ts';
import { launchQemu, type QemuProcess } from '../../machine/process.ts';
import { setTraceEvents } from '../../machine/trace-control.ts';
import { Vm } from '../../machine/vm.ts';
import type { RecordingHeader } from '../../model/events.ts';
import { QmpClient } from '../../qmp/client.ts';
import { SessionFolder } from '../session/session-folder.ts';
import type { Spool } from '../spool/spool.ts';
import { learnDevices } from './device-queries.ts';
import { Attribution } from '../../attribution/attribution.ts';
import { BESIDE_PLUGIN, eventsForArgv, eventsForDevices } from '../source/trace-events.ts';
import { type RecordOptions, type Started, begin } from './assemble.ts';
import { wallClock, headerBase } from './header.ts';
import type { PluginLink } from '../source/plugin/link.ts';
import { logPath } from '../source/plugin/log-tail.ts';
import { listenForPlugin, requirePlugin } from '../source/plugin/source.ts';
import { spoolIn, createSpool, removeAll } from './workspace.ts';

const CONNECT_RETRY_MS = 20;

const CONNECT_LIMIT_MS = 15_000;
/**
 * And to greet after that: it locks all of a large guest's memory first, for a passed-through
 * device. One that ends meanwhile ends the wait.
 */
const GREETING_LIMIT_MS = 300_000;

type PlanOptions = Pick<RecordOptions, 'selection' | 'spoolDir' | 'interrupts' | 'source'>;

/** The launch, without doing it: for `--dry-run`, with the place of the session left open. */
export async function planOnly(argv: readonly string[], options: PlanOptions): Promise<LaunchPlan> {
  planRecording(argv, options);
  return planRecording(argv, options, await pluginFor(argv, options));
}

async function pluginFor(
  argv: readonly string[],
  { source }: Pick<RecordOptions, 'source'>,
): Promise<Plugin | undefined> {
  return source === 'plugin' ? findPlugin(argv) : undefined;
}

function planRecording(
  argv: readonly string[],
  options: PlanOptions,
  plugin?: Plugin,
  dir = new SessionFolder('SESSION'),
): LaunchPlan {
  const spoolDir = options.spoolDir === undefined ? dir.spool : spoolIn(options.spoolDir, dir);
  const needs = {
    qmpSocket: dir.qmpSocket,
    logFile: join(spoolDir, '000001'),
    interrupts: options.interrupts,
  };
  const { devices, userLog } = planLaunch(argv, { ...needs, traceEvents: [] });
  if (options.source === 'kvm') {
    // QEMU's log stays the user's.
    const path = userLog?.path === undefined ? '/dev/stderr' : resolvePath(userLog.path);
    return planLaunch(argv, { ...needs, logFile: path, traceEvents: [] });
  }
  if (options.source === 'plugin') {
    const loaded = plugin && { path: plugin.path, socket: dir.pluginSocket };
    const logFile = logPath(spoolDir, 1);
    return planLaunch(argv, { ...needs, logFile, plugin: loaded, traceEvents: BESIDE_PLUGIN });
  }
  return planLaunch(argv, { ...needs, traceEvents: eventsForArgv(devices, options.selection) });
}

/** Starts QEMU and records it from its first instruction. Throws MmioError; then nothing is left. */
export async function recordLaunch(
  argv: readonly string[],
  options: RecordOptions,
): Promise<Started> {
  planRecording(argv, options);
  if (options.pc || options.source === 'kvm') findTraceDir();
  const plugin = await pluginFor(argv, options);
  const dir = await SessionFolder.create();
  let child: QemuProcess | undefined;
  let spool: Spool | undefined;
  let link: PluginLink | undefined;
  try {
    const plan = planRecording(argv, options, plugin, dir);
    spool = await createSpool(dir, options, await uidOf(plan.runAs));
    const { overflow, notice } = options;
    if (plugin) link = await listenForPlugin(dir, { overflow, target: plugin.target, notice });
    const start = wallClock();
    child = await launchQemu(plan, { stderrFile: dir.qemuStderr });
    const qmp = await child.orExit(connectPatiently(dir.qmpSocket, child.exited));
    if (plugin && link) await requirePlugin(qmp, link, plugin);
    const traceEvents = await traceEventsOf(qmp, plan, argv.length, options);
    const qemu = processRef(child.pid);
    const address = dir.qmpSocket;
    const onProblem = options.notice;
    const vm = new Vm(qmp, { address, process: qemu, child, traceEvents, onProblem });
    const header: RecordingHeader = {
      ...headerBase(start, qmp, options.source),
      argv: plan.argv,
    };
    const started = await begin({
      dir,
      spool,
      vm,
      header,
      options,
      userLog: options.source === 'kvm' ? undefined : userLogOf(plan, child.pid),
      child,
      link,
      info: {
        qemu,
        launched: true,
        qmpAddress: address,
        traceEvents,
        restore: undefined,
        plugin: plugin && { target: plugin.target },
      },
    });
    if (!plan.startPaused) await vm.resume().catch(unlessGone);
    return started;
  } catch (error) {
    await child?.terminate(1000);
    link?.close();
    await removeAll(dir, spool);
    throw error;
  }
}

async function traceEventsOf(
  qmp: QmpClient,
  plan: LaunchPlan,
  ours: number,
  { source, selection }: RecordOptions,
): Promise<readonly string[]> {
  switch (source) {
    case 'kvm':
      return [];
    case 'plugin':
      return BESIDE_PLUGIN;
    case 'log':
      return traceDevices(qmp, plan, ours, selection);
  }
}

/** Has all events of the recording on: some devices want more than the command line could tell. */
async function traceDevices(
  qmp: QmpClient,
  { argv }: LaunchPlan,
  ours: number,
  selection: readonly string[],
): Promise<readonly string[]> {
  const planned = argv.flatMap((word, i) =>
    word === '-trace' && i >= ours ? [argv[i + 1] ?? ''] : [],
  );
  const looking = new Attribution(selection, []);
  await learnDevices(qmp, looking.devices);
  const wanted = await eventsForDevices(qmp, looking.devices.selected);
  const more = wanted.filter((event) => !planned.includes(event));
  await setTraceEvents(qmp, more, true);
  return [...planned, ...more];
}

/** A guest can be so short that QEMU is gone before it has answered: its log is there all the same. */
function unlessGone(error: unknown): void {
  if (!(error instanceof MmioError) || error.code !== 'closed') throw error;
}

/** Where a QEMU of ours would have logged, and what of it is the user's. */
function userLogOf(plan: LaunchPlan, pid: number): UserLog | undefined {
  const { userLog } = plan;
  if (userLog?.path === undefined) return userLog;
  return { ...userLog, path: resolvePath(userLog.path.replace('%d', String(pid))) };
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
      return await QmpClient.connect(socket, { connectTimeoutMs: GREETING_LIMIT_MS });
    } catch (error) {
      const early =
        error instanceof MmioError && (error.code === 'not-found' || error.code === 'refused');
      if (!early || gone || Date.now() > deadline) throw error;
      await sleep(CONNECT_RETRY_MS);
    }
  }
}
