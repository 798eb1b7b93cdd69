/** Steps that the guest's agent does. */
import { stat, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { bytes } from '../../base/format.ts';
import { guestText } from '../../qmp/agent/text.ts';
import { defineStep } from './kind.ts';
import { beside } from './record-options.ts';
import { regex, word } from './schemas.ts';

const LIMIT_MS = 120_000;
const SHOWN_LINES = 6;

const runSchema = z.union([
  z.strictObject({
    command: z.string().min(1),
    arguments: z.array(word).optional(),
    environment: z.record(z.string(), word).optional(),
    input: z.string().optional(),
    'expect-exit': z.union([z.number().int(), z.literal('any')]).optional(),
    'expect-output': regex.optional(),
  }),
  // A line for the shell of a Linux guest.
  z
    .string()
    .min(1)
    .transform((line) => ({
      command: '/bin/sh',
      arguments: ['-c', line],
      environment: undefined,
      input: undefined,
      'expect-exit': undefined,
      'expect-output': undefined,
    })),
]);

export const guestRun = defineStep<z.infer<typeof runSchema>>({
  name: 'guest-run',
  about: 'Runs a program in the guest; its outputs are kept. A text alone is a line for /bin/sh.',
  example: `- guest-run:
    command: C:\\Windows\\System32\\pnputil.exe
    arguments: [/add-driver, 'C:\\drv\\nic.inf', /install]
    expect-exit: 0`,
  schema: runSchema,
  limitMs: LIMIT_MS,
  needs: ['vm', 'agent'],
  async run(options, context) {
    const { command: path, arguments: args, environment, input } = options;
    const wanted = options['expect-exit'] ?? 0;
    const agent = await context.machine.agent();
    const env =
      environment && Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    const exit = await agent.run(
      { path, args, env, input: input === undefined ? undefined : Buffer.from(input) },
      context.limit,
    );
    await writeFile(await context.saved('stdout'), exit.stdout);
    await writeFile(await context.saved('stderr'), exit.stderr);
    const said = [
      lastLines('standard output', guestText(exit.stdout)),
      lastLines('standard error', guestText(exit.stderr)),
    ].filter((text) => text !== '');
    const how =
      exit.code === undefined
        ? `was ended by signal ${exit.signal ?? '?'}`
        : `ended with ${exit.code}`;
    if (wanted !== 'any' && exit.code !== wanted) {
      throw new MmioError('refused', `${path} ${how}, not with ${wanted}`, {
        evidence: said.join('\n') || 'it said nothing',
        hint: 'what it said is kept in the run folder; expect-exit takes another status, or any',
      });
    }
    if (exit.cut) {
      throw new MmioError('refused', `the output of ${path} was cut by the agent`, {
        evidence: `${bytes(exit.stdout.length)} and ${bytes(exit.stderr.length)} are kept`,
        hint: 'write it into a file of the guest, and copy-out that',
      });
    }
    const pattern = options['expect-output'];
    if (pattern !== undefined && !pattern.test(guestText(exit.stdout))) {
      throw new MmioError('refused', `${path} did not say ${pattern.source}`, {
        evidence: said.join('\n') || 'it said nothing',
        hint: 'expect-output is a regular expression for its standard output',
      });
    }
    return `${how}, ${bytes(exit.stdout.length)} of output`;
  },
});

function lastLines(what: string, text: string): string {
  const lines = text.trimEnd().split('\n').slice(-SHOWN_LINES);
  if (lines.join('').trim() === '') return '';
  return [`${what}:`, ...lines.map((line) => `  ${line.slice(0, 200)}`)].join('\n');
}

const copySchema = z.strictObject({ from: z.string().min(1), to: z.string().min(1) });

export const copyIn = defineStep<z.infer<typeof copySchema>>({
  name: 'copy-in',
  about: 'Copies a file into the guest, through its agent.',
  example: "- copy-in: { from: drivers/nic.inf, to: 'C:\\drv\\nic.inf' }",
  schema: copySchema,
  limitMs: LIMIT_MS,
  needs: ['vm', 'agent'],
  check({ from }, { scenario }) {
    const path = beside(scenario.path, from);
    return existsSync(path) ? [] : [`there is no file ${path} to copy`];
  },
  async run({ from, to }, context) {
    const path = beside(context.lab.scenario.path, from);
    const { size } = await stat(path);
    const agent = await context.machine.agent();
    const copied = await agent.copyIn(path, to, context.limit);
    if (copied !== size) {
      throw new MmioError('io', `${from} changed while it was copied`, {
        evidence: `it had ${size} bytes, ${copied} were copied`,
      });
    }
    return `${bytes(copied)} to ${to}`;
  },
});

const copyOutSchema = z.strictObject({ from: z.string().min(1), to: z.string().min(1).optional() });

export const copyOut = defineStep<z.infer<typeof copyOutSchema>>({
  name: 'copy-out',
  about: "Copies a file of the guest into the run's folder, through its agent.",
  example: "- copy-out: { from: 'C:\\Windows\\INF\\setupapi.dev.log' }",
  schema: copyOutSchema,
  limitMs: LIMIT_MS,
  needs: ['vm', 'agent'],
  check: ({ to }) =>
    to === undefined || (!to.startsWith('/') && !to.split('/').includes('..'))
      ? []
      : [`copy-out writes into the folder of the run: ${to} is outside it`],
  async run({ from, to }, context) {
    const name = to ?? basename(from.replaceAll('\\', '/'));
    const path =
      to === undefined ? await context.saved(name) : await context.lab.folder.path(`files/${to}`);
    const agent = await context.machine.agent();
    const copied = await agent.copyOut(from, path, context.limit);
    return `${bytes(copied)} to ${context.lab.folder.nameOf(path)}`;
  },
});
