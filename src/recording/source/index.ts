import { kvmKind } from './kvm/kind.ts';
import { logKind } from './log/kind.ts';
import { pluginKind } from './plugin/kind.ts';
import type { SourceKind } from './recording-source.ts';

/** Where accesses come from: QEMU's log, KVM's tracepoints alone, or the QEMU plugin. */
export const SOURCES = {
  log: logKind,
  kvm: kvmKind,
  plugin: pluginKind,
} as const satisfies Readonly<Record<string, SourceKind>>;

export type SourceName = keyof typeof SOURCES;
