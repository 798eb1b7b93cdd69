import { MmioError, messageOf } from '../base/errors.ts';

/** The part of a QMP client that is needed here. */
export interface QmpCommands {
  /** Resolves to the command's `return`; rejects with QEMU's error. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Runs a line of the human monitor; resolves to what it prints. */
  hmp(line: string): Promise<string>;
}

/** Above this many events one question about all of them is quicker than one about each. */
const ASK_ALL_ABOVE = 20;

/**
 * Which trace events are on, by name, for names and patterns with `*` (qapi/trace.json). Events
 * that were left out when QEMU was built are not among them, nor is anything for a pattern that
 * fits none.
 *
 * @throws MmioError `not-found` for a name without `*` that this QEMU does not have; `protocol`
 */
export async function readTraceState(
  qmp: QmpCommands,
  patterns: readonly string[],
): Promise<Map<string, boolean>> {
  const states = new Map<string, boolean>();
  for (const name of patterns) {
    const answer = await named(name, qmp.execute('trace-event-get-state', { name }));
    for (const event of eventsOf(answer)) {
      if (event.state !== 'unavailable') states.set(event.name, event.state === 'enabled');
    }
  }
  return states;
}

/**
 * Switches trace events on or off; with `on`, no -trace or -d is needed on QEMU's command line.
 *
 * @throws MmioError `not-found` as `readTraceState`; what `execute` rejects with
 */
export async function setTraceEvents(
  qmp: QmpCommands,
  patterns: readonly string[],
  on: boolean,
): Promise<void> {
  for (const name of patterns) {
    const args = { name, enable: on, 'ignore-unavailable': name.includes('*') };
    await named(name, qmp.execute('trace-event-set-state', args));
  }
}

/**
 * Which of these events are off. Few questions, since QEMU answers between two accesses: all events
 * of vfio are one.
 *
 * @param patterns as `setTraceEvents` was given them
 */
export async function eventsOff(qmp: QmpCommands, patterns: readonly string[]): Promise<string[]> {
  const questions = new Set(patterns.map((name) => name.replace(/^vfio_.*/, 'vfio_*')));
  const states = await readTraceState(qmp, [...questions]);
  const wanted = (event: string) =>
    patterns.some((name) =>
      name.endsWith('*') ? event.startsWith(name.slice(0, -1)) : event === name,
    );
  return [...states].filter(([event, on]) => !on && wanted(event)).map(([event]) => event);
}

/** Puts each event that `readTraceState` told of back to what it was; touches no other. */
export async function restoreTraceState(
  qmp: QmpCommands,
  before: ReadonlyMap<string, boolean>,
): Promise<void> {
  const patterns = before.size > ASK_ALL_ABOVE ? ['*'] : [...before.keys()];
  const now = await readTraceState(qmp, patterns);
  for (const [name, on] of before) {
    if (now.get(name) !== on) await setTraceEvents(qmp, [name], on);
  }
}

interface TraceEvent {
  readonly name: string;
  readonly state: string;
}

function eventsOf(answer: unknown): TraceEvent[] {
  if (Array.isArray(answer) && answer.every(isTraceEvent)) return answer;
  throw new MmioError('protocol', 'QEMU answered trace-event-get-state with something else', {
    evidence: JSON.stringify(answer).slice(0, 200),
  });
}

function isTraceEvent(item: unknown): item is TraceEvent {
  return (
    typeof item === 'object' &&
    item !== null &&
    'name' in item &&
    typeof item.name === 'string' &&
    'state' in item &&
    typeof item.state === 'string'
  );
}

async function named(name: string, answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (error) {
    const evidence = (error instanceof MmioError ? error.evidence : undefined) ?? messageOf(error);
    if (!evidence.includes('unknown event')) throw error;
    throw new MmioError('not-found', `this QEMU has no trace event ${name}`, {
      evidence,
      hint: 'qemu-system-x86_64 -trace help lists what it has',
      cause: error,
    });
  }
}
