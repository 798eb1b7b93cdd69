/** Records a QEMU that runs already. */
import { MmioError } from '../../base/errors.ts';
import { findTraceDir } from '../../host/tracefs/trace-dir.ts';
import { stampsMessages, type UserLog } from '../../machine/argv-user.ts';
import { appendablePath } from '../../machine/log-append.ts';
import { redirectLog, restoreLog } from '../../machine/log-control.ts';
import { logTargetOf, type LogTarget } from '../../machine/log-target.ts';
import { cmdlineOf, processOfThread, processRef } from '../../machine/proc.ts';
import { readTraceState, restoreTraceState, setTraceEvents } from '../../machine/trace-control.ts';
import { Vm } from '../../machine/vm.ts';
import type { RecordingHeader } from '../../model/events.ts';
import { QmpClient } from '../../qmp/client.ts';
import { learnDevices, requireSelected } from './device-queries.ts';
import { readVcpus } from '../../machine/vcpus.ts';
import { SessionFolder } from '../session/session-folder.ts';
import { Attribution } from '../../attribution/attribution.ts';
import { Spool } from '../spool/spool.ts';
import { eventsForDevices } from '../source/trace-events.ts';
import { type RecordOptions, type Started, begin } from './assemble.ts';
import { waitUntilClosed } from './detach.ts';
import { wallClock, headerBase } from './header.ts';
import { KvmTrace } from '../source/kvm/trace.ts';
import { createSpool, requireFolder, removeAll } from './workspace.ts';

/** Attaches to a QEMU that runs, by its QMP socket. Throws MmioError; QEMU is then as it was. */
export async function recordAttach(address: string, options: RecordOptions): Promise<Started> {
  if (options.source === 'kvm') return recordAttachKvm(address, options);
  if (options.source === 'plugin') {
    throw new MmioError('usage', 'a QEMU that runs cannot be given a plugin any more', {
      evidence: `--source plugin --qmp ${address}`,
      hint: 'start it with mmiobridge record --source plugin -- QEMU ARGV…, or leave out --source',
    });
  }
  if (options.pc) findTraceDir();
  for (const path of options.outputs) await requireFolder(path);
  const qmp = await QmpClient.connect(address);
  let dir: SessionFolder | undefined;
  let spool: Spool | undefined;
  const undo: (() => Promise<unknown>)[] = [];
  try {
    const vcpus = await readVcpus(qmp);
    const [thread = 0] = vcpus.keys();
    const owner = processOfThread(thread);
    const argv = owner === undefined ? [] : cmdlineOf(owner.pid);
    const selecting = new Attribution(options.selection, []);
    await learnDevices(qmp, selecting.devices);
    requireSelected(selecting.devices, options.selection);
    const traceEvents = await eventsForDevices(qmp, selecting.devices.selected);

    dir = await SessionFolder.create();
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
    const header: RecordingHeader = {
      ...headerBase(wallClock(), qmp, 'log'),
      clock: stampsMessages(argv) ? 'qemu' : 'poll',
      argv,
    };
    // Before the log: of what KVM has not seen nobody knows the program counter.
    const trace = options.pc ? await KvmTrace.begin(qmp, [...vcpus.keys()]) : undefined;
    undo.push(async () => trace?.close());
    const prelude = spool.currentPath;
    await redirectLog(qmp, prelude);
    undo.push(() => restoreLog(qmp, restore.log));
    undo.unshift(() => restoreTraceState(qmp, new Map(restore.events)));
    // One event goes on after the other: the recording begins where all are, with a new segment.
    await setTraceEvents(qmp, traceEvents, true);
    await redirectLog(qmp, spool.nextPath);
    spool = await Spool.reopen(spool.dir, { segment: 2, offset: 0 });
    await waitUntilClosed(vm, prelude);
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
      trace,
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

/** Attaches without a word to QEMU's log: KVM tells of the accesses. */
async function recordAttachKvm(address: string, options: RecordOptions): Promise<Started> {
  findTraceDir();
  for (const path of options.outputs) await requireFolder(path);
  const qmp = await QmpClient.connect(address);
  let dir: SessionFolder | undefined;
  let spool: Spool | undefined;
  try {
    const [thread = 0] = (await readVcpus(qmp)).keys();
    const owner = processOfThread(thread);
    if (owner === undefined) {
      throw new MmioError('refused', 'the vCPUs of this QEMU are not threads of this host', {
        evidence: `query-cpus-fast: thread ${thread}, which is not in /proc`,
        hint: 'record on the host and in the PID namespace that QEMU runs in',
      });
    }
    const qemu = processRef(owner.pid);
    dir = await SessionFolder.create();
    spool = await createSpool(dir, options, undefined);
    const onProblem = options.notice;
    const vm = new Vm(qmp, { address, process: qemu, traceEvents: [], onProblem });
    return await begin({
      dir,
      spool,
      vm,
      header: { ...headerBase(wallClock(), qmp, 'kvm'), argv: cmdlineOf(owner.pid) },
      options,
      userLog: undefined,
      child: undefined,
      info: {
        qemu,
        launched: false,
        qmpAddress: address,
        traceEvents: [],
        restore: undefined,
      },
    });
  } catch (error) {
    await qmp.close();
    await removeAll(dir, spool);
    throw error;
  }
}
