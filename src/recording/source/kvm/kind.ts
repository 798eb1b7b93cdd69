/** KVM's tracepoints alone: without a word to QEMU's log. Needs root, and a guest on KVM. */
import { resolve as resolvePath } from 'node:path';
import { MmioError } from '../../../base/errors.ts';
import { findTraceDir } from '../../../host/tracefs/trace-dir.ts';
import { planLaunch } from '../../../machine/argv.ts';
import { readVcpus } from '../../../machine/vcpus.ts';
import { checkSaved } from '../../session/saved.ts';
import { segmentPath } from '../../spool/spool.ts';
import type { SourceKind, SourceOptions, SourceParts } from '../recording-source.ts';
import { KvmSource, type ResumedTrace } from './source.ts';
import { kvmInfoSchema, kvmStateSchema } from './state.ts';
import { resumeTrace } from './trace-session.ts';
import { KvmTrace } from './trace.ts';

export const kvmKind: SourceKind = {
  header: 'kvm',
  clock: 'kernel',

  launch: async (argv, options) => {
    const { interrupts } = options;
    requireNoMarkRegister(options);
    let trace: KvmTrace | undefined;
    return {
      plan: ({ qmpSocket }, spoolDir) => {
        const needs = { qmpSocket, interrupts, traceEvents: [] };
        const logFile = segmentPath(spoolDir, 1);
        const { userLog } = planLaunch(argv, { ...needs, logFile });
        // QEMU's log stays the user's.
        const path = userLog?.path === undefined ? '/dev/stderr' : resolvePath(userLog.path);
        return planLaunch(argv, { ...needs, logFile: path });
      },
      prepare: async () => void findTraceDir(),
      begin: async ({ qmp }) => {
        const begun = await KvmTrace.begin(qmp, [...(await readVcpus(qmp)).keys()]);
        trace = begun;
        return { userLog: undefined, open: async (parts) => opened(begun, parts) };
      },
      close: () => trace?.close(),
    };
  },

  requireAttachable: (_address, options) => {
    requireNoMarkRegister(options);
    findTraceDir();
  },

  attach: async ({ qmp, pid, vcpus }) => {
    const [thread = 0] = vcpus.keys();
    if (pid === undefined) {
      throw new MmioError('refused', 'the vCPUs of this QEMU are not threads of this host', {
        evidence: `query-cpus-fast: thread ${thread}, which is not in /proc`,
        hint: 'record on the host and in the PID namespace that QEMU runs in',
      });
    }
    let trace: KvmTrace | undefined;
    return {
      clock: 'kernel',
      info: null,
      qemuWrites: false,
      begin: async () => {
        const begun = await KvmTrace.begin(qmp, [...vcpus.keys()]);
        trace = begun;
        return { userLog: undefined, open: async (parts) => opened(begun, parts) };
      },
      undo: async () => trace?.close(),
    };
  },

  // Its trace is taken down when the next one begins.
  giveUp: async () => undefined,

  resume: async (parts, info, state) => {
    const saved = checkSaved(kvmInfoSchema, info, 'what is kept of the trace');
    const from = checkSaved(kvmStateSchema, state, 'the state of the trace');
    const trace = await resumeTrace(parts.vm, saved.trace);
    return opened(trace, parts, { trace: saved.trace, state: from });
  },
};

/** A trace that nobody reads fills the kernel's memory. */
function opened(
  trace: KvmTrace | undefined,
  parts: SourceParts,
  resumed?: ResumedTrace,
): KvmSource {
  try {
    return new KvmSource(parts, trace, resumed);
  } catch (error) {
    trace?.close();
    throw error;
  }
}

/** Configuration space is reached through ports that all devices share, or is not trapped at all. */
function requireNoMarkRegister({ markRegister }: SourceOptions): void {
  if (markRegister === undefined) return;
  throw new MmioError('usage', "KVM's tracepoints do not tell of configuration space", {
    evidence: '--mark-register with --source kvm',
    hint: 'leave out --source kvm, or let the guest mark through a port (docs/lab.md)',
  });
}
