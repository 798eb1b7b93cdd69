/** What `record:` of a scenario has: the options of `mmiobridge record`, by their names there. */
import { appendFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { openSender } from '../../bridge/sender.ts';
import { remoteTarget } from '../../bridge/remote-target.ts';
import type { RecordOptions } from '../../recording/begin/options.ts';
import { formatOfPath, OUTPUT_FORMATS } from '../../sinks/index.ts';
import { TEXT_EXTRAS } from '../../sinks/text-extra.ts';
import type { LabRun } from '../machine/lab-run.ts';
import { configPlace } from '../../model/config-place.ts';
import { sizeSchema } from '../language/size.ts';

const listOf = <T>(schema: z.ZodType<T>) =>
  z.union([z.array(schema).min(1), schema.transform((one): T[] => [one])]);

const word = z.string().min(1);

const outputPath = word
  .refine((path) => path !== '-', { error: 'a file: a run has no standard output' })
  .refine(known, {
    error: 'a file whose suffix names a format: .mmiocap, .mmiotrace, .txt, .ndjson, each also .gz',
  });

function known(path: string): boolean {
  try {
    formatOfPath(path);
    return true;
  } catch {
    return false;
  }
}

const MIN_SPOOL_BYTES = 2 ** 20;

const configRegister = z.string().transform((text, context) => {
  const offset = configPlace(text);
  if (offset !== undefined) return offset;
  context.addIssue({ code: 'custom', message: 'a place in configuration space: config+0x3c' });
  return z.NEVER;
});

export const recordSchema = z.strictObject({
  output: listOf(outputPath).optional(),
  device: listOf(word).optional(),
  source: z.enum(['log', 'kvm', 'plugin']).optional(),
  pc: z.boolean().optional(),
  irq: z.boolean().optional(),
  'text-extra': listOf(z.enum(TEXT_EXTRAS)).optional(),
  format: z.enum(OUTPUT_FORMATS).optional(),
  spool: word.optional(),
  'spool-limit': sizeSchema
    .refine((size) => size >= MIN_SPOOL_BYTES, { error: 'at least 1M' })
    .optional(),
  overflow: z.enum(['pause', 'drop']).optional(),
  'mark-register': configRegister.optional(),
  'send-to': word.optional(),
  'token-file': word.optional(),
  'tls-ca': word.optional(),
  'insecure-plaintext': z.boolean().optional(),
});

export type RecordSection = z.infer<typeof recordSchema>;

/** Where a run's recording goes when its scenario does not say. */
const DEFAULT_OUTPUTS = ['trace.mmiocap', 'trace.mmiotrace'];

/** Options of a collector without one are refused, as on the command line. */
export function checkRecord(section: RecordSection | undefined): string[] {
  if (section === undefined || section['send-to'] !== undefined) return [];
  const alone = (['token-file', 'tls-ca', 'insecure-plaintext'] as const).filter(
    (name) => section[name] !== undefined,
  );
  return alone.map((name) => `record ${name} is for a collector, and there is no send-to`);
}

/** The same as `record` would have; outputs lie in the run's folder. */
export async function recordOptions(
  section: RecordSection | undefined,
  lab: LabRun,
  signal: AbortSignal,
): Promise<RecordOptions> {
  const given = section ?? {};
  const sendTo = given['send-to'];
  const names = given.output ?? (sendTo === undefined ? DEFAULT_OUTPUTS : []);
  const outputs: string[] = [];
  for (const name of names) {
    outputs.push(isAbsolute(name) ? name : await lab.folder.path(name));
  }
  lab.outputs = outputs;
  const said = await lab.folder.path('qemu.log');
  return {
    outputs,
    ...(sendTo !== undefined && {
      remote: remoteTarget(sendTo, {
        tokenFile: given['token-file'],
        tlsCa: given['tls-ca'],
        insecurePlaintext: given['insecure-plaintext'],
      }),
      openRemote: openSender,
    }),
    format: given.format,
    textExtra: given['text-extra'],
    selection: given.device ?? [],
    overflow: given.overflow ?? 'pause',
    markRegister: given['mark-register'],
    pc: given.pc === true,
    source: given.source ?? 'log',
    spoolLimitBytes: given['spool-limit'],
    spoolDir: given.spool,
    interrupts: given.irq ?? true,
    signal,
    notice: lab.notice,
    // What QEMU would have said on a terminal.
    onUserLog: (bytes) => void appendFile(said, bytes).catch(() => undefined),
  };
}

/** Relative paths in a scenario are those beside it. */
export function beside(scenario: string, path: string): string {
  return isAbsolute(path) ? path : join(scenario, '..', path);
}
