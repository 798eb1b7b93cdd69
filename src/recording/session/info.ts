/** What a recording is; written once, and again when another process takes it over. */
import { z } from 'zod';
import type { UserLog } from '../../machine/argv-user.ts';
import type { ProcessRef } from '../../machine/proc.ts';
import type { RecordingHeader } from '../../model/events.ts';
import { OUTPUT_FORMATS, type OutputFormat } from '../../sinks/index.ts';
import { TEXT_EXTRAS, type TextExtra } from '../../sinks/text-extra.ts';
import type { RemoteTarget } from './remote.ts';

export interface SessionInfo {
  readonly id: string;
  readonly recorder: ProcessRef;
  readonly qemu: ProcessRef | undefined;
  /** We started QEMU, and may end it. */
  readonly launched: boolean;
  readonly qmpAddress: string;
  readonly spoolDir: string;
  readonly header: RecordingHeader;
  readonly selection: readonly string[];
  readonly outputs: readonly string[];
  /** The collector that it goes to, too. */
  readonly remote?: RemoteTarget | undefined;
  /** Of outputs whose name does not tell. */
  readonly format?: OutputFormat | undefined;
  /** What the text tells of beside what mmiotrace has lines for. */
  readonly textExtra?: readonly TextExtra[] | undefined;
  readonly overflow: 'pause' | 'drop';
  /** Offset in configuration space whose writes are the guest's marks. */
  readonly markRegister?: number | undefined;
  readonly spoolLimitBytes: number;
  /** Where lines go that are the user's own. */
  readonly userLog: UserLog | undefined;
  /** Name of the source, and what it keeps for `resume`. */
  readonly source: string;
  readonly sourceInfo: unknown;
}

export const processRefSchema: z.ZodType<ProcessRef> = z.object({
  pid: z.number(),
  startTime: z.number(),
});

export const headerSchema: z.ZodType<RecordingHeader> = z.object({
  tool: z.string(),
  source: z.enum(['qemu-log', 'mmiotrace', 'kvm', 'plugin']),
  startSec: z.number(),
  startNs: z.number(),
  textBaseSec: z.number(),
  clock: z.enum(['qemu', 'poll', 'kernel', 'none']),
  qemuVersion: z.string(),
  argv: z.array(z.string()),
});

const remote: z.ZodType<RemoteTarget> = z.object({
  address: z.string(),
  tokenFile: z.string().optional(),
  caFile: z.string().optional(),
  insecurePlaintext: z.boolean(),
  recording: z.string(),
}) as z.ZodType<RemoteTarget>;

const userLog = z.object({
  path: z.string().optional(),
  patterns: z.array(z.string()),
  logItems: z.boolean(),
}) as z.ZodType<UserLog>;

export const infoSchema = z.object({
  id: z.string(),
  recorder: processRefSchema,
  qemu: processRefSchema.optional(),
  launched: z.boolean(),
  qmpAddress: z.string(),
  spoolDir: z.string(),
  header: headerSchema,
  selection: z.array(z.string()),
  outputs: z.array(z.string()),
  remote: remote.optional(),
  format: z.enum(OUTPUT_FORMATS).optional(),
  textExtra: z.array(z.enum(TEXT_EXTRAS)).optional(),
  overflow: z.enum(['pause', 'drop']),
  markRegister: z.number().optional(),
  spoolLimitBytes: z.number(),
  userLog: userLog.optional(),
  source: z.string(),
  sourceInfo: z.unknown(),
}) as unknown as z.ZodType<SessionInfo>;
