import { MmioError, messageOf } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';

/** What QEMU says of its own accord: `STOP`, `RESUME`, `SHUTDOWN`, `DEVICE_DELETED`, … */
export interface QmpEvent {
  readonly name: string;
  /** Empty where the event carries none. */
  readonly data: Readonly<Record<string, unknown>>;
  /** QEMU's clock, µs since 1970; -1 where QEMU could not read it. */
  readonly timestampUs: number;
}

/** A line from the server, by QEMU's `docs/interop/qmp-spec`. */
export type QmpMessage =
  | {
      readonly kind: 'greeting';
      readonly version: string;
      readonly versionNumber: readonly [major: number, minor: number, micro: number];
    }
  | { readonly kind: 'return'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: unknown; readonly class: string; readonly desc: string }
  | { readonly kind: 'event'; readonly event: QmpEvent };

type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Reads one line; `undefined` for one of nothing but white space. Throws MmioError `protocol`, with
 * the line's first bytes as evidence, for anything that is not a message.
 */
export function parseMessage(line: Buffer): QmpMessage | undefined {
  const text = line.toString('utf8');
  if (text.trim() === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MmioError('protocol', `QMP: a line is not JSON: ${jsonMessage(error)}`, {
      evidence: escapeBytes(line, 200),
      hint: 'is this a QMP socket? The human monitor needs -qmp, or mode=control, instead',
      cause: error,
    });
  }
  const message = isObject(value) ? shape(value) : undefined;
  if (message === undefined) {
    throw new MmioError('protocol', 'QMP: a line is not a greeting, reply, error or event', {
      evidence: escapeBytes(line, 200),
      hint: 'is this a QMP socket?',
    });
  }
  return message;
}

function shape(value: JsonObject): QmpMessage | undefined {
  if ('QMP' in value) return isObject(value['QMP']) ? greeting(value['QMP']) : undefined;
  if ('return' in value) return { kind: 'return', id: value['id'], value: value['return'] };
  if ('error' in value) {
    const error = value['error'];
    if (!isObject(error)) return undefined;
    const { class: errorClass, desc } = error;
    if (typeof errorClass !== 'string' || typeof desc !== 'string') return undefined;
    return { kind: 'error', id: value['id'], class: errorClass, desc };
  }
  if ('event' in value) return event(value);
  return undefined;
}

function greeting(qmp: JsonObject): QmpMessage | undefined {
  const version = qmp['version'];
  if (!isObject(version) || !isObject(version['qemu'])) return undefined;
  const { major, minor, micro } = version['qemu'];
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') {
    return undefined;
  }
  const numbers = `${major}.${minor}.${micro}`;
  // Some builds put the parentheses, or a blank, into the package themselves.
  const raw = version['package'];
  const packaged = typeof raw === 'string' ? raw.trim().replace(/^\((.*)\)$/, '$1') : '';
  return {
    kind: 'greeting',
    version: packaged === '' ? numbers : `${numbers} (${packaged})`,
    versionNumber: [major, minor, micro],
  };
}

function event(value: JsonObject): QmpMessage | undefined {
  const { event: name, data, timestamp } = value;
  if (typeof name !== 'string' || !isObject(timestamp)) return undefined;
  const { seconds, microseconds } = timestamp;
  if (typeof seconds !== 'number' || typeof microseconds !== 'number') return undefined;
  if (data !== undefined && !isObject(data)) return undefined;
  const timestampUs = seconds < 0 ? -1 : seconds * 1e6 + microseconds;
  return { kind: 'event', event: { name, data: data ?? {}, timestampUs } };
}

/** V8 quotes the whole line in its message; the evidence does that, and shorter. */
function jsonMessage(error: unknown): string {
  const message = messageOf(error);
  const quote = message.indexOf(', ');
  return quote === -1 ? message.slice(0, 100) : message.slice(0, Math.min(quote, 100));
}
