/** Starts a QEMU and records it from its first instruction. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Devices } from '../../attribution/devices.ts';
import { MmioError } from '../../base/errors.ts';
import type { LaunchPlan } from '../../machine/argv.ts';
import { processRef } from '../../machine/proc.ts';
import { launchQemu, type QemuProcess } from '../../machine/process.ts';
import { qemuProcess } from '../../machine/vcpus.ts';
import { Vm } from '../../machine/vm.ts';
import { QmpClient } from '../../qmp/client.ts';
import { SessionFolder } from '../session/session-folder.ts';
import { SOURCES } from '../source/index.ts';
import type { SourceLaunch } from '../source/recording-source.ts';
import type { Spool } from '../spool/spool.ts';
import { type Started, announce, begin } from './assemble.ts';
import { learnDevices } from './device-queries.ts';
import { headerOf, startNow } from './header.ts';
import type { RecordOptions } from './options.ts';
import { createSpool, removeAll, spoolDirOf } from './workspace.ts';

const CONNECT_RETRY_MS = 20;

const CONNECT_LIMIT_MS = 15_000;
/**
 * And to greet after that: it locks all of a large guest's memory first, for a passed-through
 * device. One that ends meanwhile ends the wait.
 */
const GREETING_LIMIT_MS = 300_000;

type PlanOptions = Pick<
  RecordOptions,
  'selection' | 'spoolDir' | 'interrupts' | 'source' | 'pc' | 'overflow' | 'markRegister' | 'notice'
>;

/** The launch, without doing it: for `--dry-run`, with the session's folder left open. */
export async function planOnly(argv: readonly string[], options: PlanOptions): Promise<LaunchPlan> {
  const launch = await SOURCES[options.source].launch(argv, options);
  return planFor(launch, new SessionFolder('SESSION'), options);
}

function planFor(launch: SourceLaunch, folder: SessionFolder, options: PlanOptions): LaunchPlan {
  return launch.plan(folder, spoolDirOf(folder, options.spoolDir));
}

/** Starts QEMU and records it from its first instruction. Throws MmioError; then nothing is left. */
export async function recordLaunch(
  argv: readonly string[],
  options: RecordOptions,
): Promise<Started> {
  const kind = SOURCES[options.source];
  const launch = await kind.launch(argv, options);
  // What cannot be recorded at all is refused before anything is made.
  planFor(launch, new SessionFolder('SESSION'), options);
  const folder = await SessionFolder.create();
  let child: QemuProcess | undefined;
  let spool: Spool | undefined;
  try {
    const plan = planFor(launch, folder, options);
    spool = await createSpool(folder, options, await uidOf(plan.runAs));
    await launch.prepare(folder);
    const start = startNow();
    const address = folder.qmpSocket;
    const announced = await announce(folder, spool, options, {
      qemu: undefined,
      launched: true,
      qmpAddress: address,
      header: headerOf(start, '', kind, plan.argv),
      sourceInfo: null,
    });
    child = await launchQemu(plan, { stderrFile: folder.qemuStderr });
    const { pid } = child;
    await folder.writeInfo({ ...announced, qemu: processRef(pid) });
    const qmp = await child.orExit(connectPatiently(address, child.exited));
    const devices = new Devices(options.selection);
    await learnDevices(qmp, devices);
    const { selected } = devices;
    const source = await launch.begin({ qmp, pid, plan, start, selected });
    const qemu = await qemuProcess(qmp);
    const vm = new Vm(qmp, { address, process: qemu, child, onProblem: options.notice });
    const started = await begin({
      folder,
      spool,
      vm,
      info: {
        ...announced,
        qemu: qemu ?? processRef(pid),
        header: headerOf(start, qmp.version, kind, plan.argv),
      },
      options,
      source,
      child,
    });
    if (!plan.startPaused) await vm.resume().catch(unlessGone);
    return started;
  } catch (error) {
    await child?.terminate(1000);
    launch.close();
    await removeAll(folder, spool);
    throw error;
  }
}

/** A guest can be so short that QEMU is gone before it has answered: its log is there all the same. */
function unlessGone(error: unknown): void {
  if (!(error instanceof MmioError) || error.code !== 'closed') throw error;
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
