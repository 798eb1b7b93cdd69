/**
 * One connection between a sender and a collector, seen from either end: frames and messages in,
 * frames and messages out, heartbeats, and the one reason for which it ended.
 */
import type { Socket } from 'node:net';
import { describeError } from '../base/errors.ts';
import {
  decodeBridgeMessage,
  encodeBridgeMessage,
  isBridgeMessage,
  type BridgeMessage,
} from '../wire/bridge-messages.ts';
import { MAX_PAYLOAD_BYTES } from '../wire/frame.ts';
import { FrameSplitter } from '../wire/frame-splitter.ts';

const HEARTBEAT_MS = 2000;
/** Who says nothing for so long is gone, or stalled: either way it can come back. */
export const SILENCE_MS = 10_000;
/** Until a peer has been let in it may say hello, and no more. */
export const MAX_HELLO_BYTES = 16 << 10;
/** What a peer that does not read may leave with us. */
const MAX_UNREAD_BYTES = 1 << 20;
const FAREWELL_MS = 1000;

export interface ConnectionHandler {
  message(message: BridgeMessage): void;
  /** A frame of the recording. */
  frame(payload: Uint8Array): void;
}

export class Connection {
  /** Why it ended. Settles once, and never rejects. */
  readonly closed: Promise<string>;
  readonly #socket: Socket;
  readonly #splitter = new FrameSplitter(MAX_HELLO_BYTES);
  #close!: (reason: string) => void;
  #handler: ConnectionHandler;
  #open = true;
  #drained: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #heardMs = performance.now();
  #tickMs = performance.now();

  /** The handler may throw: then that is the reason for which the connection ends. */
  constructor(socket: Socket, handler: ConnectionHandler) {
    this.#socket = socket;
    this.#handler = handler;
    this.closed = new Promise((resolve) => (this.#close = resolve));
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('drain', () => this.#releaseWriter());
    socket.on('error', (error) => this.#end(describeError(error)));
    socket.on('close', () => this.#end('the other side closed the connection'));
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Both sides know each other: long frames are taken, and silence is noticed. */
  admit(handler: ConnectionHandler): void {
    this.#handler = handler;
    this.#splitter.maxPayloadBytes = MAX_PAYLOAD_BYTES;
    this.#heardMs = this.#tickMs = performance.now();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#beat(), HEARTBEAT_MS);
  }

  send(message: BridgeMessage): void {
    if (this.#open) this.#socket.write(encodeBridgeMessage(message));
  }

  /** Whole frames, which must stay as they are for a while. A promise where the wire is behind. */
  write(frames: Uint8Array): Promise<void> | undefined {
    if (!this.#open || this.#socket.write(frames)) return undefined;
    if (this.#drained === undefined) {
      let resolve = (): void => undefined;
      const promise = new Promise<void>((settle) => (resolve = settle));
      this.#drained = { promise, resolve };
    }
    return this.#drained.promise;
  }

  /** Ends it, with a last word to the other side if it listens. */
  drop(reason: string, last?: BridgeMessage): void {
    if (!this.#open) return;
    if (last === undefined) this.#socket.destroy();
    else {
      this.#socket.end(encodeBridgeMessage(last));
      // One that does not take it must not be held for ever.
      setTimeout(() => this.#socket.destroy(), FAREWELL_MS).unref();
    }
    this.#end(reason);
  }

  #take(chunk: Uint8Array): void {
    this.#heardMs = performance.now();
    if (!this.#open) return;
    try {
      for (const payload of this.#splitter.feed(chunk)) {
        if (isBridgeMessage(payload)) this.#handler.message(decodeBridgeMessage(payload));
        else this.#handler.frame(payload);
        if (!this.#open) return;
      }
    } catch (error) {
      const reason = describeError(error);
      this.drop(reason, { kind: 'refusal', reason });
    }
  }

  #beat(): void {
    const nowMs = performance.now();
    // We stood still ourselves, and what has come meanwhile is yet to be read.
    if (nowMs - this.#tickMs > 2 * HEARTBEAT_MS) this.#heardMs = nowMs;
    this.#tickMs = nowMs;
    const silentMs = nowMs - this.#heardMs;
    if (silentMs > SILENCE_MS) {
      this.drop(`it has been silent for ${Math.round(silentMs / 1000)} s`);
    } else if (this.#socket.writableLength === 0) {
      this.send({ kind: 'heartbeat' });
    } else if (this.#drained === undefined && this.#socket.writableLength > MAX_UNREAD_BYTES) {
      this.drop('it does not read what it is sent');
    }
  }

  #end(reason: string): void {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#timer);
    this.#releaseWriter();
    this.#close(reason);
  }

  #releaseWriter(): void {
    this.#drained?.resolve();
    this.#drained = undefined;
  }
}
