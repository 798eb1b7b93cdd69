/** The WebSocket: asks, is told, and comes back by itself when it was cut off. */
import type { Span } from '../analysis/span.ts';
import { effect } from '@preact/signals';
import { hex } from '../base/format.ts';
import type { FailedEvent } from '../model/events.ts';
import { v1 } from '../wire/generated/mmiobridge.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import { PayloadDecoder } from '../wire/payload.ts';
import { token } from './address.ts';
import { LIST, MAP, TIMELINE, toHole, toShown } from './shown.ts';
import * as state from './state.ts';

type Request = mmiobridge.v1.PageMessage.$Properties;
type Reply = mmiobridge.v1.ServerMessage.$Properties;

/** What the server said no to. */
export class Refused extends Error {
  readonly at: number;
  readonly hint: string;

  constructor({ message, at, hint }: mmiobridge.v1.Failure.$Properties) {
    super(message ?? '');
    this.at = at ?? 0;
    this.hint = hint ?? '';
  }
}

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

const RETRY_MS = 1000;
/** Of a WebSocket that is closed because its server goes (RFC 6455, 7.4.1). */
const SERVER_ENDS = 1001;

let socket: WebSocket | undefined;
let nextId = 1;
let retry = 0;
const waiting = new Map<number, Waiting>();
/** The last watch of each slot that was asked for and not yet carried out. */
const watching = new Map<number, number>();

/** Looks at that recording from now on, and comes back to it; undefined: at none. */
export function connect(recording: string | undefined): void {
  clearTimeout(retry);
  const before = socket;
  socket = undefined;
  before?.close();
  leave();
  if (recording === undefined) return;
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const url = `${scheme}://${location.host}/ws?recording=${encodeURIComponent(recording)}`;
  const current = new WebSocket(url, ['mmiobridge.v1', `token.${token()}`]);
  socket = current;
  current.binaryType = 'arraybuffer';
  current.addEventListener('open', () => {
    if (socket !== current) return;
    const was = state.connection.peek();
    if (was === 'lost' || was === 'ended') state.say('connected again: all is read anew');
    state.forget();
    state.connection.value = 'open';
    watchAll();
  });
  current.addEventListener('message', ({ data }) => {
    if (socket !== current || !(data instanceof ArrayBuffer)) return;
    onMessage(v1.ServerMessage.decode(new Uint8Array(data)));
  });
  current.addEventListener('close', ({ code }) => {
    if (socket !== current) return;
    leave();
    // Tried again all the same: it may be started anew with the same address.
    if (code === SERVER_ENDS) state.connection.value = 'ended';
    else if (state.connection.peek() === 'open') state.connection.value = 'lost';
    retry = setTimeout(() => connect(recording), RETRY_MS);
  });
}

function leave(): void {
  for (const { reject } of waiting.values()) reject(new Error('the connection was lost'));
  waiting.clear();
  watching.clear();
}

/** Rejects with `Refused`, or where there is no connection. */
export function ask(request: Request): Promise<Reply> {
  return new Promise((resolve, reject) => {
    if (socket?.readyState !== WebSocket.OPEN) {
      reject(new Error('there is no connection'));
      return;
    }
    const id = nextId++;
    waiting.set(id, { resolve, reject });
    socket.send(
      v1.PageMessage.encode({ ...request, id })
        .finish()
        .slice(),
    );
  });
}

function onMessage(message: Reply): void {
  const { id, failure } = message;
  if (id) {
    const request = waiting.get(id);
    waiting.delete(id);
    if (failure) request?.reject(new Refused(failure));
    else request?.resolve(message);
    return;
  }
  if (message.summary) state.summary.value = message.summary;
  else if (message.frames) onFrames(message.frames.frames ?? []);
  else if (message.holes) state.holes.value = (message.holes.holes ?? []).map(toHole);
  else if (message.behind) {
    const { accesses = 0 } = message.behind;
    state.missed.value = { accesses: (state.missed.peek()?.accesses ?? 0) + (accesses ?? 0) };
  } else if (message.reset) {
    state.forget();
    state.say('the file was replaced: another recording begins');
    watchAll();
  } else if (message.selection) {
    const slot = message.selection.slot ?? 0;
    // What was watched before may still be on its way.
    if (watching.has(slot)) return;
    const shown = toShown(message.selection);
    if (slot === LIST) {
      state.list.value = shown;
      state.listFor.value = state.listEpoch.peek();
    } else if (slot === MAP) state.map.value = shown;
    else state.timeline.value = shown;
  }
}

function onFrames(frames: readonly Uint8Array[]): void {
  const decoder = new PayloadDecoder();
  const { tables } = state.tables.peek();
  const marks = [];
  const notices = [];
  for (const frame of frames) {
    const item = decoder.decode(frame);
    if (!('kind' in item) || item.kind === 'unknown') continue;
    if (item.kind === 'header') {
      state.header.value = item.header;
      continue;
    }
    tables.apply(item);
    if (item.kind === 'mark') marks.push(item);
    else if (item.kind === 'notice') notices.push({ timeNs: item.timeNs, text: item.text });
    else if (item.kind === 'coverage') state.coverage.value = item.statement;
    else if (item.kind === 'reset') {
      notices.push({ timeNs: item.timeNs, text: `reset of ${tables.deviceName(item.device)}` });
    } else if (item.kind === 'vm-state') notices.push({ timeNs: item.timeNs, text: item.state });
    else if (item.kind === 'failed') notices.push({ timeNs: item.timeNs, text: failureText(item) });
  }
  state.tables.value = { tables };
  const byTime = (a: { timeNs: number }, b: { timeNs: number }): number => a.timeNs - b.timeNs;
  if (marks.length > 0) state.marks.value = [...state.marks.peek(), ...marks].toSorted(byTime);
  if (notices.length > 0) state.notices.value = [...state.notices.peek(), ...notices];
}

function failureText({ write, region, offset, value, reason }: FailedEvent): string {
  const { tables } = state.tables.peek();
  const where = tables.regions[region];
  const name = where === undefined ? '?' : `${tables.deviceName(where.device)} ${where.name}`;
  const what = write ? `write of ${value} to` : `read (${value}) of`;
  return `${what} ${name}+${hex(offset)} failed: ${reason}`;
}

function watchAll(): void {
  void watch(LIST, state.filter.peek(), state.span.peek());
  void watch(TIMELINE, state.filter.peek(), state.zoom.peek());
  void watch(MAP, '', state.span.peek());
}

async function watch(slot: number, filter: string, span: Span | undefined): Promise<void> {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const turn = nextId;
  watching.set(slot, turn);
  try {
    const fromNs = span?.fromNs ?? 0;
    const toNs = span?.toNs ?? 0;
    const has = span !== undefined;
    await ask({ watch: { slot, filter, fromNs, toNs, hasFrom: has, hasTo: has } });
    if (slot === LIST) state.filterError.value = undefined;
  } catch (error) {
    if (error instanceof Refused && slot === LIST) {
      const { message, at, hint } = error;
      state.filterError.value = { message, at, hint };
    }
  }
  if (watching.get(slot) !== turn) return;
  watching.delete(slot);
  if (slot === LIST && state.filterError.peek() === undefined) state.listEpoch.value++;
}

effect(() => void watch(LIST, state.filter.value, state.span.value));
effect(() => void watch(TIMELINE, state.filter.value, state.zoom.value));
effect(() => void watch(MAP, '', state.span.value));
