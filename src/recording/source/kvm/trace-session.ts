/** KVM's tracepoints over the life of a recording, whose recorder may change. */
import { z } from 'zod';
import { readVcpus } from '../../../machine/vcpus.ts';
import type { Vm } from '../../../machine/vm.ts';
import type { EventFormat, KvmTraceInfo } from '../../../sources/kvm-tracepoints/formats.ts';
import type { Start } from '../recording-source.ts';
import { sessionTimeAt } from './clock.ts';
import { KvmTrace } from './trace.ts';

/** Enough to find a trace again, and to read what it left in the spool. */
export interface SavedTrace extends KvmTraceInfo {
  /** Session time of the trace's base, in nanoseconds. */
  readonly originNs: number;
}

const format: z.ZodType<EventFormat> = z.object({
  id: z.number(),
  fields: z.record(z.string(), z.object({ offset: z.number(), size: z.number() })),
  sizeBytes: z.number(),
});

export const savedTraceSchema: z.ZodType<SavedTrace> = z.object({
  instance: z.string(),
  baseNs: z.string().regex(/^\d+$/),
  originNs: z.number(),
  formats: z.object({
    pageBytes: z.number(),
    dataOffset: z.number(),
    emulate: format,
    mmio: format,
    pio: format,
    exit: format,
  }),
});

/** @param before what was kept of the trace of a recorder before us, whose times count on */
export function saveTrace(trace: KvmTrace, start: Start, before?: SavedTrace): SavedTrace {
  const originNs = before?.originNs ?? sessionTimeAt(trace.baseNs, start);
  return { ...trace.info, originNs };
}

/**
 * The trace of a recorder before us if it is still there, else a new one whose times count from
 * where its did. undefined where there is neither: QEMU is gone, and so is the trace.
 */
export async function resumeTrace(
  vm: Vm | undefined,
  saved: SavedTrace,
): Promise<KvmTrace | undefined> {
  const found = KvmTrace.find(saved);
  if (found !== undefined || vm === undefined) return found;
  const threads = [...(await readVcpus(vm.qmp)).keys()];
  return KvmTrace.begin(vm.qmp, threads, saved.baseNs);
}
