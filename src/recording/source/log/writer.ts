import { eventsOff, setTraceEvents } from '../../../machine/trace-control.ts';
import type { Vm } from '../../../machine/vm.ts';
import type { Spool } from '../../spool/spool.ts';
import { ELSEWHERE, type Disturbance, type SpoolWriter } from '../../spool/spool-writer.ts';
import { elsewhereLook, othersFilesOf } from './elsewhere.ts';

/** QEMU itself, told over QMP. */
export function logWriter(vm: Vm, spool: Spool, traceEvents: readonly string[]): SpoolWriter {
  return {
    logInto: (path) => vm.logInto(path, spool.currentPath),
    trace: async (on) => setTraceEvents(await vm.connected(), traceEvents, on),
    holdsOpen: (path) => vm.holdsOpen(path),
    othersFiles: () => othersFilesOf(vm, spool.dir),
    disturbance: logDisturbance(vm, traceEvents, {
      dir: spool.dir,
      // One that QEMU has left it may close later.
      isOurs: (path) => path === spool.currentPath || path === spool.nextPath,
      logAgain: async () => {
        await vm.logInto(spool.nextPath);
        spool.advanceWriter();
      },
    }),
  };
}

/**
 * Looks what somebody else has done to the log that we have of a QEMU. What it returns throws what
 * `QmpClient.execute` throws: without its answer nothing is known of a QEMU that may just be ending.
 */
export function logDisturbance(
  vm: Vm,
  traceEvents: readonly string[],
  log: {
    readonly dir: string;
    readonly isOurs: (path: string) => boolean;
    readonly logAgain: () => Promise<void>;
  },
): () => Promise<Disturbance | undefined> {
  const look = elsewhereLook(vm, log.dir, log.isOurs);
  return async () => {
    // In this order: a QEMU that has ended has no file open, and does not answer.
    const isElsewhere = await look();
    const off = await eventsOff(vm.qmp, traceEvents);
    if (!isElsewhere && off.length === 0) return undefined;
    const what = [
      ...(isElsewhere ? [ELSEWHERE] : []),
      ...(off.length > 0 ? [`trace events were switched off (${off.join(', ')})`] : []),
    ];
    return {
      what: what.join(', and '),
      putBack: async () => {
        if (isElsewhere) await log.logAgain();
        await setTraceEvents(await vm.connected(), off, true);
      },
    };
  };
}
