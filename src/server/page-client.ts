/**
 * One page. It is answered one request after the other, and is told what is new as long as it
 * reads; one that does not read misses what is new, is told how much, and holds up nobody.
 */
import type { WebSocket } from 'ws';
import { messageOf, MmioError } from '../base/errors.ts';
import { v1 } from '../wire/generated/mmiobridge.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import type { CaptureFeed } from './capture-feed.ts';
import { FilterError } from '../analysis/filter/parse.ts';
import { historyMessage } from './register-history.ts';
import { selectionText } from './selection-text.ts';
import { rowsMessage } from './row-page.ts';
import type { Selection } from './selection.ts';

type Request = mmiobridge.v1.PageMessage.$Properties;
type Reply = mmiobridge.v1.ServerMessage.$Properties;

/** With so much unread, a page is not told anything new. */
const UNREAD_BYTES = 512 << 10;
/** One that reads nothing for so long is let go. */
const STALLED_MS = 60_000;
const PING_MS = 15_000;
const MAX_SLOTS = 4;
const MAX_ROWS = 1024;
const MAX_LINES = 10_000;
const MAX_WAITING = 256;
const MAX_MARK_CHARS = 1000;

interface Slot {
  readonly selection: Selection;
  told: number;
}

export class PageClient {
  readonly #socket: WebSocket;
  readonly #feed: CaptureFeed;
  readonly #letGo: (reason: string) => void;
  readonly #slots = new Map<number, Slot>();
  readonly #waiting: Request[] = [];
  #working = false;
  #generation: number;
  /** Up to where in the file it was told of what is no access. */
  #eventsTold = 0;
  #telling = false;
  #summary = '';
  #holesTold = 0;
  #missed = 0;
  #rowsTold = 0;
  #stalledSince: number | undefined;
  #lastPing = performance.now();
  #answered = true;

  constructor(socket: WebSocket, feed: CaptureFeed, letGo: (reason: string) => void) {
    this.#socket = socket;
    this.#feed = feed;
    this.#generation = feed.generation;
    this.#letGo = letGo;
    socket.binaryType = 'nodebuffer';
    socket.on('message', (data: Buffer, binary) => this.#onMessage(data, binary));
    socket.on('pong', () => (this.#answered = true));
    socket.on('error', () => socket.terminate());
    socket.on('close', () => this.#release());
  }

  /** Tells what is new, if the page keeps up. */
  tick(): void {
    const now = performance.now();
    this.#ping(now);
    if (this.#socket.bufferedAmount > UNREAD_BYTES) {
      this.#missed++;
      this.#stalledSince ??= now;
      if (now - this.#stalledSince > STALLED_MS) this.#drop('reads nothing');
      return;
    }
    this.#stalledSince = undefined;
    const { index, generation } = this.#feed;
    if (generation !== this.#generation) this.#reset(generation);
    if (this.#missed > 0) {
      const accesses = Math.max(0, index.rows - this.#rowsTold);
      this.#send({ behind: { updates: this.#missed, accesses } });
      this.#missed = 0;
    }
    this.#rowsTold = index.rows;
    void this.#tellEvents();
    this.#tellSummary();
    this.#tellHoles();
    for (const number of this.#slots.keys()) this.#tellSlot(number);
  }

  close(): void {
    this.#socket.close(1001, 'the server ends');
  }

  #reset(generation: number): void {
    this.#generation = generation;
    this.#eventsTold = 0;
    this.#holesTold = 0;
    this.#release();
    this.#send({ reset: {} });
  }

  #release(): void {
    for (const { selection } of this.#slots.values()) this.#feed.selections.release(selection);
    this.#slots.clear();
  }

  #ping(now: number): void {
    if (now - this.#lastPing < PING_MS) return;
    this.#lastPing = now;
    // While it reads nothing, it answers nothing: that is told elsewhere.
    if (!this.#answered && this.#stalledSince === undefined) this.#drop('does not answer');
    this.#answered = false;
    this.#socket.ping();
  }

  #drop(reason: string): void {
    this.#letGo(reason);
    this.#socket.terminate();
  }

  /** Reads them from the file: there may be more than fit the memory. */
  async #tellEvents(): Promise<void> {
    const { index, generation } = this.#feed;
    if (this.#telling || this.#eventsTold >= index.eventsEnd) return;
    this.#telling = true;
    try {
      const { frames, next } = await index.events(this.#eventsTold);
      if (generation !== this.#generation) return;
      this.#eventsTold = next;
      if (frames.length > 0) this.#send({ frames: { frames: [...frames] } });
    } catch {
      // The file is another one now, which the next tick tells.
    } finally {
      this.#telling = false;
    }
  }

  #tellSummary(): void {
    const summary = this.#feed.summary();
    const text = JSON.stringify(summary);
    if (text === this.#summary) return;
    this.#summary = text;
    this.#send({ summary });
  }

  #tellHoles(): void {
    const { all, version } = this.#feed.index.holes;
    if (version === this.#holesTold) return;
    this.#holesTold = version;
    const holes = all.map(({ kind, ...hole }) => ({ ...hole, damage: kind === 'damage' }));
    this.#send({ holes: { holes } });
  }

  #tellSlot(number: number): void {
    const slot = this.#slots.get(number);
    if (slot === undefined) return;
    const { selection } = slot;
    const { version } = selection;
    if (version === slot.told) return;
    slot.told = version;
    const message = this.#feed.selections.message(selection);
    this.#send({ selection: { slot: number, ...message } });
  }

  #onMessage(data: Buffer, binary: boolean): void {
    let request: Request;
    try {
      if (!binary) throw new Error('text');
      request = v1.PageMessage.decode(data);
    } catch {
      this.#refuse('what it says is no message of ours');
      return;
    }
    if (this.#waiting.length >= MAX_WAITING) {
      this.#refuse(`more than ${MAX_WAITING} requests wait`);
      return;
    }
    this.#waiting.push(request);
    if (!this.#working) void this.#work();
  }

  #refuse(reason: string): void {
    this.#letGo(reason);
    this.#socket.close(1008, reason);
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let request; (request = this.#waiting.shift()) !== undefined;) {
      const id = request.id ?? 0;
      try {
        this.#send({ id, ...(await this.#answer(request)) });
      } catch (error) {
        this.#send({ id, failure: failureOf(error) });
      }
    }
    this.#working = false;
  }

  async #answer(request: Request): Promise<Reply> {
    const { watch, rows, history, lines, addMark } = request;
    const { index } = this.#feed;
    if (watch) return this.#watch(watch);
    if (rows) {
      const count = Math.min(rows.count ?? 0, MAX_ROWS);
      return { rows: await rowsMessage(index, this.#slot(rows.slot), rows.first ?? 0, count) };
    }
    if (history) {
      const { key } = this.#slot(history.slot);
      const { region, offset } = history;
      return { history: await historyMessage(index, key, region ?? 0, offset ?? 0) };
    }
    if (lines) {
      const count = Math.min(lines.count ?? 0, MAX_LINES);
      return { lines: await selectionText(index, this.#slot(lines.slot), lines.first ?? 0, count) };
    }
    if (addMark) {
      const text = (addMark.text ?? '').trim();
      if (text === '' || text.length > MAX_MARK_CHARS) {
        throw new MmioError('usage', 'a mark has 1 to 1000 characters');
      }
      await this.#feed.link.mark(text);
      return { done: {} };
    }
    throw new MmioError('protocol', 'a request that is not known');
  }

  #watch(watch: mmiobridge.v1.Watch.$Properties): Reply {
    const number = watch.slot ?? 0;
    if (number >= MAX_SLOTS) throw new MmioError('protocol', `there is no slot ${number}`);
    const { selections } = this.#feed;
    const selection = selections.acquire({
      filter: (watch.filter ?? '').trim(),
      fromNs: watch.hasFrom === true ? (watch.fromNs ?? 0) : -Infinity,
      toNs: watch.hasTo === true ? (watch.toNs ?? 0) : Infinity,
    });
    const before = this.#slots.get(number);
    if (before !== undefined) selections.release(before.selection);
    this.#slots.set(number, { selection, told: -1 });
    return { done: {} };
  }

  #slot(number: number | null | undefined): Selection {
    const slot = this.#slots.get(number ?? 0);
    if (slot === undefined) throw new MmioError('protocol', 'nothing is watched in that slot');
    return slot.selection;
  }

  #send(message: Reply): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#socket.send(v1.ServerMessage.encode(message).finish());
  }
}

function failureOf(error: unknown): mmiobridge.v1.Failure.$Properties {
  const at = error instanceof FilterError ? error.at : 0;
  const hint = error instanceof MmioError ? (error.hint ?? '') : '';
  const evidence = error instanceof MmioError ? error.evidence : undefined;
  const message = messageOf(error) + (evidence === undefined ? '' : `: ${evidence}`);
  return { message, at, hint };
}
