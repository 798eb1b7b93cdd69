/** QEMU's own log: the events of vfio and of memory regions, printed by QEMU into the spool. */
import { dirname, resolve as resolvePath } from 'node:path';
import { findTraceDir } from '../../../host/tracefs/trace-dir.ts';
import { stampsMessages, type UserLog } from '../../../machine/argv-user.ts';
import { planLaunch, type LaunchPlan } from '../../../machine/argv.ts';
import { appendablePath } from '../../../machine/log-append.ts';
import { redirectLog, restoreLog } from '../../../machine/log-control.ts';
import { logTargetOf, type LogTarget } from '../../../machine/log-target.ts';
import {
  readTraceState,
  restoreTraceState,
  setTraceEvents,
} from '../../../machine/trace-control.ts';
import { readVcpus } from '../../../machine/vcpus.ts';
import type { Vm } from '../../../machine/vm.ts';
import { checkSaved } from '../../session/saved.ts';
import { isSegment, segmentPath } from '../../spool/spool.ts';
import { KvmTrace } from '../kvm/trace.ts';
import { resumeTrace, saveTrace } from '../kvm/trace-session.ts';
import type {
  GiveUpOptions,
  RunningQemu,
  SourceAttach,
  SourceBeginning,
  SourceKind,
  SourceLaunch,
  SourceOptions,
  SourceParts,
} from '../recording-source.ts';
import { eventsForArgv, eventsForDevices } from '../trace-events.ts';
import { detachFromLog, waitUntilClosed } from './detach.ts';
import { logInfoSchema, logStateSchema, type LogInfo } from './state.ts';
import { LogSource } from './source.ts';
import { forwardUserLog } from './user-lines.ts';

export const logKind: SourceKind = {
  header: 'qemu-log',
  clock: 'qemu',
  launch,
  requireAttachable: (_address, { pc }) => void (pc && findTraceDir()),
  attach,
  giveUp,
  resume,
};

async function launch(
  argv: readonly string[],
  { selection, interrupts, pc, markRegister }: SourceOptions,
): Promise<SourceLaunch> {
  let trace: KvmTrace | undefined;
  const marks = markRegister !== undefined;
  const planInto = (qmpSocket: string, logFile: string): LaunchPlan => {
    const needs = { qmpSocket, logFile, interrupts };
    const { devices } = planLaunch(argv, { ...needs, traceEvents: [] });
    return planLaunch(argv, { ...needs, traceEvents: eventsForArgv(devices, selection, marks) });
  };
  return {
    plan: (folder, spoolDir) => planInto(folder.qmpSocket, segmentPath(spoolDir, 1)),
    prepare: async () => void (pc && findTraceDir()),
    begin: async ({ qmp, pid, plan, start, selected }) => {
      const planned = plannedEvents(plan, argv.length);
      const wanted = await eventsForDevices(qmp, selected, marks);
      // Some devices want more than the command line could tell.
      const more = wanted.filter((event) => !planned.includes(event));
      await setTraceEvents(qmp, more, true);
      const vcpus = await readVcpus(qmp);
      const begun = pc ? await KvmTrace.begin(qmp, [...vcpus.keys()]) : undefined;
      trace = begun;
      const info: LogInfo = {
        traceEvents: [...planned, ...more],
        restore: null,
        trace: begun === undefined ? null : saveTrace(begun, start),
      };
      return {
        userLog: userLogOf(plan, pid),
        open: async (parts) => LogSource.open(parts, { info, trace: begun, aligned: true }),
      };
    },
    close: () => trace?.close(),
  };
}

/** The events that we have put on QEMU's command line behind the user's words. */
function plannedEvents({ argv }: LaunchPlan, users: number): string[] {
  return argv.flatMap((word, at) => (word === '-trace' && at >= users ? [argv[at + 1] ?? ''] : []));
}

/** Where a QEMU of ours would have logged, and what of it is the user's. */
export function userLogOf({ userLog }: LaunchPlan, pid: number): UserLog | undefined {
  if (userLog?.path === undefined) return userLog;
  return { ...userLog, path: resolvePath(userLog.path.replace('%d', String(pid))) };
}

async function attach(
  qemu: RunningQemu,
  { pc, markRegister }: SourceOptions,
): Promise<SourceAttach> {
  const { qmp, pid, argv, vcpus, selected } = qemu;
  const traceEvents = await eventsForDevices(qmp, selected, markRegister !== undefined);
  const before = await readTraceState(qmp, ['*']);
  const ours = await readTraceState(qmp, traceEvents);
  const log: LogTarget = pid === undefined ? { kind: 'none' } : logTargetOf(argv, pid);
  const events = [...ours.keys()].map((name): [string, boolean] => [
    name,
    before.get(name) ?? false,
  ]);
  const undo: (() => Promise<unknown>)[] = [];
  const wasSilent =
    [...before.values()].every((on) => !on) && !argv.some((word) => /^--?d$/.test(word));
  const restore = { events, log, wasSilent };
  return {
    clock: stampsMessages(argv) ? 'qemu' : 'poll',
    info: { traceEvents, restore, trace: null } satisfies LogInfo,
    qemuWrites: true,
    begin: async ({ vm, spool, start }): Promise<SourceBeginning> => {
      // Before the log: of what KVM has not seen nobody knows the program counter.
      const trace = pc ? await KvmTrace.begin(qmp, [...vcpus.keys()]) : undefined;
      undo.push(async () => trace?.close());
      const prelude = spool.currentPath;
      await redirectLog(qmp, prelude);
      undo.push(() => restoreLog(qmp, log));
      undo.unshift(() => restoreTraceState(qmp, new Map(events)));
      // One event goes on after the other: the recording begins where all are, with a new segment.
      await setTraceEvents(qmp, traceEvents, true);
      await redirectLog(qmp, spool.nextPath);
      spool.advanceWriter();
      await spool.advanceReader();
      await waitUntilClosed(vm, prelude);
      const info: LogInfo = {
        traceEvents,
        restore,
        trace: trace === undefined ? null : saveTrace(trace, start),
      };
      return {
        // Whatever else QEMU logs (-d, or `log` and `trace-event` of its monitor) is somebody's.
        userLog: {
          path: pid === undefined ? undefined : appendablePath(log, pid),
          patterns: [...before].filter(([, on]) => on).map(([name]) => name),
          logItems: true,
        },
        open: async (parts) => {
          await forwardUserLog(prelude, parts.userLog);
          return LogSource.open(parts, { info, trace, aligned: false });
        },
      };
    },
    undo: async () => {
      for (const step of undo) await step().catch(() => undefined);
    },
  };
}

async function giveUp(vm: Vm, saved: unknown, { spoolDir, notice }: GiveUpOptions): Promise<void> {
  const { restore } = checkSaved(logInfoSchema, saved, 'what is kept of the log');
  if (restore !== null) await detachFromLog(vm, restore, spoolDir, { notice, userLog: undefined });
}

async function resume(parts: SourceParts, saved: unknown, savedState: unknown): Promise<LogSource> {
  const info = checkSaved(logInfoSchema, saved, 'what is kept of the log');
  const state = checkSaved(logStateSchema, savedState, 'the state of the log');
  const { vm, spool, header } = parts;
  if (vm === undefined) {
    if (info.trace !== null) KvmTrace.find(info.trace)?.close();
    return LogSource.open(parts, { info, trace: undefined, aligned: false, state });
  }
  // The recorder may have died before it had QEMU go on in the segment that it made. What somebody
  // else has changed since is put back where it is said, by who watches the source.
  const isBehind = vm.openFiles()?.some((path) => dirname(path) === spool.dir && isSegment(path));
  if (isBehind === true && vm.holdsOpen(spool.currentPath) === false) {
    await vm.logInto(spool.nextPath);
    spool.advanceWriter();
  }
  const before = info.trace ?? undefined;
  const trace = before && (await resumeTrace(vm, before));
  const now = trace ? { ...info, trace: saveTrace(trace, header, before) } : info;
  return LogSource.open(parts, { info: now, trace, aligned: false, state });
}
