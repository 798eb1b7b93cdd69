/** What a recording from QEMU's log keeps for `resume`. */
import { z } from 'zod';
import type { LogTarget } from '../../../machine/log-target.ts';
import type { JoinCounts } from '../../../sources/kvm-tracepoints/join.ts';
import type { LineCounts } from '../../../sources/spool-decoder.ts';
import { savedTraceSchema, type SavedTrace } from '../kvm/trace-session.ts';

export interface LogInfo {
  readonly traceEvents: readonly string[];
  /** Trace states and log target to put back at the end, where we attached; null: we started QEMU. */
  readonly restore: {
    readonly events: readonly (readonly [string, boolean])[];
    readonly log: LogTarget;
    /** Nothing was logged before: it does not matter where the log goes afterwards. */
    readonly wasSilent: boolean;
  } | null;
  /** KVM's tracepoints, where program counters are wanted. */
  readonly trace: SavedTrace | null;
}

export interface LogState {
  readonly lines: LineCounts;
  /** How far QEMU's standard error has been read, in bytes. */
  readonly stderrBytes: number;
  readonly pc: JoinCounts | null;
}

const logTarget: z.ZodType<LogTarget> = z.union([
  z.object({ kind: z.literal('file'), path: z.string() }),
  z.object({ kind: z.literal('stderr'), is: z.literal('stream') }),
  z.object({ kind: z.literal('stderr'), is: z.literal('other') }),
  z.object({
    kind: z.literal('stderr'),
    is: z.literal('file'),
    path: z.string(),
    appends: z.boolean(),
  }),
  z.object({ kind: z.literal('none') }),
]);

export const logInfoSchema: z.ZodType<LogInfo> = z.object({
  traceEvents: z.array(z.string()),
  restore: z
    .object({
      events: z.array(z.tuple([z.string(), z.boolean()])),
      log: logTarget,
      wasSilent: z.boolean(),
    })
    .nullable(),
  trace: savedTraceSchema.nullable(),
});

export const lineCountsSchema: z.ZodType<LineCounts> = z.object({
  stamped: z.number(),
  unstamped: z.number(),
  others: z.array(z.tuple([z.string(), z.number()])),
});

export const logStateSchema: z.ZodType<LogState> = z.object({
  lines: lineCountsSchema,
  stderrBytes: z.number(),
  pc: z
    .object({ joined: z.number(), alone: z.number(), unlogged: z.number(), losses: z.number() })
    .nullable(),
});
