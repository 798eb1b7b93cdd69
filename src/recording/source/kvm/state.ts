/** What a recording from KVM's tracepoints keeps for `resume`. */
import { z } from 'zod';
import type { KvmDecoderSnapshot } from '../../../sources/kvm-tracepoints/decoder.ts';
import { savedTraceSchema, type SavedTrace } from './trace-session.ts';

export interface KvmInfo {
  readonly trace: SavedTrace;
}

export const kvmInfoSchema: z.ZodType<KvmInfo> = z.object({ trace: savedTraceSchema });

const number = z.number();
const row = z.tuple([number, number, number, number, number, number, number, number]);

export const kvmStateSchema: z.ZodType<KvmDecoderSnapshot> = z.object({
  records: number,
  rounds: z.array(z.tuple([number, z.array(row)])),
  threads: z.array(z.tuple([number, z.object({ pcLo: number, pcHi: number, asked: number })])),
  vcpus: z.array(z.tuple([number, number])),
});
