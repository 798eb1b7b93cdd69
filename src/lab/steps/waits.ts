/** Steps that wait for something. */
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { count, counted } from '../../base/format.ts';
import { parseFilter, type Filter } from '../../analysis/filter/parse.ts';
import type { QmpEvent } from '../../qmp/client.ts';
import { durationSchema, formatDuration } from '../language/duration.ts';
import { beginningOf, defineStep, type CheckContext } from './kind.ts';
import { nothing, regex } from './schemas.ts';

const LIMIT_MS = 60_000;

export const wait = defineStep<number>({
  name: 'wait',
  about: 'Waits for a time.',
  example: '- wait: 5s',
  schema: durationSchema,
  limitMs: 24 * 24 * 3_600_000,
  needs: [],
  async run(ms, context) {
    await context.pause(ms);
    return formatDuration(ms);
  },
});

const serialSchema = z.union([
  z.strictObject({ text: regex, port: z.string().optional() }),
  regex.transform((text) => ({ text, port: undefined })),
]);

export const waitSerial = defineStep<z.infer<typeof serialSchema>>({
  name: 'wait-serial',
  about:
    'Waits for a text on a serial port: a regular expression, in what no step before has matched.',
  example: "- wait-serial: { text: 'login: $', port: console }",
  schema: serialSchema,
  limitMs: LIMIT_MS,
  needs: ['vm'],
  check: ({ port }, { before }) => checkPort(port, before),
  async run({ text, port: name }, context) {
    const port = context.machine.port(name);
    const found = await context.until(
      () => port.match(text),
      `the text ${String(text)} on the serial port ${port.name}`,
      () => port.tail(),
    );
    return `“${found.trim().slice(0, 80)}”`;
  },
});

/** The serial ports that the step before gives, if it can be told. */
export function checkPort(port: string | undefined, before: CheckContext['before']): string[] {
  const begins = beginningOf(before);
  if (begins === undefined) return [];
  const { serial } = begins.options as { serial?: readonly string[] | Record<string, string> };
  const names = Array.isArray(serial) ? (serial as string[]) : Object.keys(serial ?? {});
  if (names.length > 0 && (port === undefined || names.includes(port))) return [];
  const what = port === undefined ? 'the VM has no serial port' : `there is no serial port ${port}`;
  return [`${what}: ${begins.kind.name} has ${names.join(', ') || 'none'} (serial: …)`];
}

export const waitAgent = defineStep({
  name: 'wait-agent',
  about: "Waits until the guest's agent answers.",
  example: '- wait-agent: {}',
  schema: nothing,
  limitMs: 120_000,
  needs: ['vm', 'agent'],
  async run(_, context) {
    const { machine } = context;
    const agent = await machine.agent();
    // Each try is short, so that a VM that ends is seen.
    const version = await context.until(
      () =>
        agent
          .ready({ timeoutMs: Math.min(2000, context.leftMs), signal: context.signal })
          .catch((error: unknown) => {
            if (error instanceof MmioError && ['timeout', 'closed'].includes(error.code)) {
              return undefined;
            }
            throw error;
          }),
      "an answer of the guest's agent",
      () => [...machine.ports.values()].map((port) => port.tail()).join('\n'),
    );
    return `qemu-guest-agent ${version}`;
  },
});

const eventSchema = z.union([
  z.strictObject({
    event: z.string().regex(/^[A-Z][A-Z0-9_]*$/, { error: 'a QMP event, such as RESET' }),
    data: z.record(z.string(), z.unknown()).optional(),
    since: z.string().optional(),
  }),
  z
    .string()
    .regex(/^[A-Z][A-Z0-9_]*$/, { error: 'a QMP event, such as RESET' })
    .transform((event) => ({ event, data: undefined, since: undefined })),
]);

export const waitEvent = defineStep<z.infer<typeof eventSchema>>({
  name: 'wait-event',
  about: 'Waits for an event of QMP, from this step on or from an earlier one.',
  example: '- wait-event: { event: DEVICE_DELETED, data: { device: nic0 }, since: unplug }',
  schema: eventSchema,
  limitMs: LIMIT_MS,
  needs: ['vm'],
  check: ({ since }, { before }) => checkSince(since, before),
  async run({ event: name, data, since }, context) {
    const { machine } = context;
    const from = since === undefined ? machine.events.length : (machine.eventsAt.get(since) ?? 0);
    const wanted = (event: QmpEvent) => event.name === name && fits(event.data, data ?? {});
    const found = await context.until(
      () => machine.events.slice(from).find(wanted),
      `the event ${name}`,
      () => {
        const others = machine.events.slice(from).map((event) => event.name);
        return `there was ${[...new Set(others)].join(', ') || 'no other event'}`;
      },
    );
    return JSON.stringify(found.data);
  },
});

function fits(data: QmpEvent['data'], wanted: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(wanted).every(
    ([key, value]) => JSON.stringify(data[key]) === JSON.stringify(value),
  );
}

function checkSince(since: string | undefined, before: CheckContext['before']): string[] {
  if (since === undefined || before.some(({ name }) => name === since)) return [];
  return [
    `since names no earlier step: ${since}; there is ${before.map((step) => step.name).join(', ') || 'none'}`,
  ];
}

const filter = z.string().transform((text, context): Filter => {
  try {
    return parseFilter(text);
  } catch (error) {
    const message = error instanceof MmioError ? error.message : String(error);
    context.addIssue({ code: 'custom', message: `a filter: ${message} (see docs/live.md)` });
    return z.NEVER;
  }
});

const accessSchema = z.union([
  z.strictObject({
    filter,
    count: z.number().int().min(1).optional(),
    since: z.string().optional(),
  }),
  filter.transform((of) => ({ filter: of, count: undefined, since: undefined })),
]);

export const waitAccess = defineStep<z.infer<typeof accessSchema>>({
  name: 'wait-access',
  about:
    "Waits for accesses that pass a filter (the page's language), from this step's mark on, or from that of an earlier one; since the step that started the VM: from the first.",
  example: "- wait-access: { filter: 'write bar0+0x100 value&0x1', count: 1, since: load }",
  schema: accessSchema,
  limitMs: LIMIT_MS,
  needs: ['recording'],
  check: ({ since }, { before }) => checkSince(since, before),
  watches: ({ filter: of, since }) => ({ filter: of, since }),
  async run({ count: wanted = 1, filter: of }, context) {
    const watch = context.lab.watches.get(context.step.name);
    if (watch === undefined) throw new Error('the watch of this step was not set');
    const what = wanted === 1 ? 'the access' : counted(wanted, 'access', 'accesses');
    await context.until(
      () => (watch.count >= wanted ? true : undefined),
      what,
      () =>
        [
          `${count(watch.count)} of ${count(wanted)} came, of ${counted(context.lab.watch.rows, 'access', 'accesses')} in all`,
          ...context.lab.watch.unknownNames(of),
        ].join('\n'),
    );
    return watch.first;
  },
});

const quietSchema = z.union([
  z.strictObject({ for: durationSchema, filter: filter.optional() }),
  durationSchema.transform((ms) => ({ for: ms, filter: undefined })),
]);

export const waitQuiet = defineStep<z.infer<typeof quietSchema>>({
  name: 'wait-quiet',
  about: 'Waits until there has been no access for a time; with a filter, none that passes it.',
  example: "- wait-quiet: { for: 500ms, filter: 'bar0' }",
  schema: quietSchema,
  limitMs: LIMIT_MS,
  needs: ['recording'],
  watches: ({ filter: of }) => ({ filter: of ?? { kind: 'all' }, since: undefined }),
  async run({ for: ms }, context) {
    const watch = context.lab.watches.get(context.step.name);
    if (watch === undefined) throw new Error('the watch of this step was not set');
    await context.until(
      // Before its mark has gone by nothing is counted.
      () =>
        watch.passes !== undefined && performance.now() - watch.lastAtMs >= ms ? true : undefined,
      `${formatDuration(ms)} without an access`,
      () => `${counted(watch.count, 'access', 'accesses')} since the step began`,
    );
    return `after ${counted(watch.count, 'access', 'accesses')}`;
  },
});
