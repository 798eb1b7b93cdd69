/**
 * The recorder's end of the bridge: an output whose `sync` resolves when the collector has all of it
 * on its disk. What it has not is kept here, up to the collector's window; then `write` waits, the
 * recorder with it, and the spool holds the rest. A connection that ends is made again for ever.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { TOOL } from '../base/version.ts';
import { MmioError, messageOf, describeError } from '../base/errors.ts';
import { log } from '../base/log.ts';
import { parseRequest, type ControlRequest } from '../recording/session/control-socket.ts';
import type {
  RemoteOutput,
  RemoteSession,
  RemoteState,
  RemoteTarget,
} from '../recording/session/remote.ts';
import { BRIDGE_VERSION, type BridgeMessage, type Welcome } from '../wire/bridge-messages.ts';
import { FILE_HEADER_BYTES, FRAME_HEADER_BYTES, readU32 } from '../wire/frame.ts';
import { parseBridgeAddress, requireConfidential, type BridgeAddress } from './address.ts';
import { Connection } from './connection.ts';
import { dial } from './dial.ts';
import { readToken } from './token.ts';
import { Unacknowledged } from './unacknowledged.ts';

const RETRY_MS = [200, 500, 1000, 2000] as const;
const WELCOME_LIMIT_MS = 15_000;
/** Twice the largest frame. */
const MIN_WINDOW_BYTES = 8 << 20;
/** After so much the collector is asked to make all safe. */
const PIECE_BYTES = 256 << 10;

interface Waiter {
  readonly captureOffset: number;
  readonly resolve: () => void;
}

/** Connects. Throws MmioError where the collector cannot be reached, or does not let us in. */
export async function openSender(
  target: RemoteTarget,
  session: RemoteSession,
): Promise<BridgeSender> {
  const address = parseBridgeAddress(target.address);
  requireConfidential(address, target.insecurePlaintext);
  const sender = new BridgeSender(address, target, session);
  await sender.begin();
  return sender;
}

export class BridgeSender implements RemoteOutput {
  readonly #address: BridgeAddress;
  readonly #target: RemoteTarget;
  readonly #session: RemoteSession;
  readonly #id = randomBytes(16).toString('hex');
  readonly #kept: Unacknowledged;
  /** The file header of a capture is no frame: it is left out on the way. */
  #headerTaken: boolean;
  /** Where the collector is asked to make all safe, and has not yet. */
  #syncs: number[] = [];
  #waiters: Waiter[] = [];
  #connection: Connection | undefined;
  #windowBytes = MIN_WINDOW_BYTES;
  /** On this connection: frames, and the last offset that was asked to be made safe. */
  #sent = 0;
  #asked = -1;
  #pump: Promise<void> = Promise.resolve();
  #wake: () => void = () => undefined;
  #problem: string | undefined;
  /** Where a recorder that is killed goes back to: here, or where it asked for a sync after that. */
  #committed: number;
  #asking: number;
  #lastSync: number;
  #finishing = false;
  #finished = false;
  #dropped = false;
  #answer: ((request: ControlRequest) => Promise<unknown>) | undefined;

  constructor(address: BridgeAddress, target: RemoteTarget, session: RemoteSession) {
    this.#address = address;
    this.#target = target;
    this.#session = session;
    const captureOffset = session.resumeAt ?? FILE_HEADER_BYTES;
    this.#kept = new Unacknowledged(captureOffset);
    this.#committed = this.#asking = this.#lastSync = captureOffset;
    this.#headerTaken = session.resumeAt !== undefined;
  }

  async begin(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      // One that is resumed has a recording that waits here, for as long as the collector is away.
      const isAway = error instanceof MmioError && ['closed', 'timeout'].includes(error.code);
      if (this.#session.resumeAt === undefined || !isAway) throw error;
      this.#trouble(describeError(error));
    }
    void this.#keepConnected();
  }

  get state(): RemoteState {
    return {
      address: this.#address.text,
      problem: this.#problem ?? null,
      acknowledgedBytes: this.#kept.start,
      waitingBytes: this.#kept.bytes,
    };
  }

  serve(handle: (request: ControlRequest) => Promise<unknown>): void {
    this.#answer = handle;
  }

  write(bytes: Uint8Array): Promise<void> {
    let frames = bytes;
    if (!this.#headerTaken) {
      this.#headerTaken = true;
      frames = bytes.subarray(FILE_HEADER_BYTES);
    }
    if (frames.length === 0) return Promise.resolve();
    // The capture sink uses its buffer again.
    for (const piece of piecesOf(frames.slice())) {
      this.#kept.push(piece);
      // So that a wire that breaks often brings something over all the same.
      const lastSync = this.#syncs.at(-1) ?? this.#kept.start;
      if (this.#kept.end - lastSync >= PIECE_BYTES) this.#syncs.push(this.#kept.end);
    }
    this.#wake();
    if (this.#kept.bytes <= this.#windowBytes) return Promise.resolve();
    return this.#acknowledged(this.#kept.end - this.#windowBytes);
  }

  flush(): Promise<number> {
    return Promise.resolve(this.#kept.end);
  }

  async sync(): Promise<void> {
    // Who asks again has written down what was asked for before.
    this.#committed = this.#lastSync;
    this.#asking = this.#kept.end;
    await this.#safe(this.#asking);
    this.#lastSync = this.#asking;
  }

  /** Resolves when the collector has finished the recording: all is on its disk. */
  async close(): Promise<void> {
    await this.#safe(this.#kept.end);
    this.#finishing = true;
    this.#wake();
    await new Promise<void>((resolve) => {
      if (this.#finished) resolve();
      else this.#waiters.push({ captureOffset: Infinity, resolve });
    });
    this.drop();
  }

  /** Lets go of the collector: the recording can be resumed. */
  drop(): void {
    this.#dropped = true;
    this.#connection?.drop('ended');
    this.#wake();
  }

  #safe(captureOffset: number): Promise<void> {
    if (captureOffset > (this.#syncs.at(-1) ?? this.#kept.start)) this.#syncs.push(captureOffset);
    this.#wake();
    return this.#acknowledged(captureOffset);
  }

  #acknowledged(captureOffset: number): Promise<void> {
    if (captureOffset <= this.#kept.start) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ captureOffset, resolve }));
  }

  async #keepConnected(): Promise<void> {
    while (!this.#dropped) {
      const reason = await this.#connection?.closed;
      // What it was about to write belongs to the connection before.
      this.#wake();
      await this.#pump;
      if (this.#dropped) return;
      if (reason !== undefined) this.#trouble(`connection lost: ${reason}`);
      for (let attempt = 0; !this.#dropped; attempt++) {
        await sleep(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
        if (this.#dropped) return;
        try {
          await this.#connect();
          this.#session.notice(`collector ${this.#address.text}: connected again`);
          break;
        } catch (error) {
          this.#trouble(describeError(error));
        }
      }
    }
  }

  #trouble(problem: string): void {
    log('bridge', () => `${this.#address.text}: ${problem}`);
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#session.notice(`collector ${this.#address.text}: ${problem}; the recording waits here`);
  }

  async #connect(): Promise<void> {
    const token = this.#address.kind === 'unix' ? '' : readToken(this.#target.tokenFile);
    const socket = await dial(this.#address, this.#target.caFile);
    let welcomed: (welcome: Welcome) => void = () => undefined;
    let refused: (error: MmioError) => void = () => undefined;
    const welcome = new Promise<Welcome>((resolve, reject) => {
      welcomed = resolve;
      refused = reject;
    });
    const name = `the collector at ${this.#address.text}`;
    const connection: Connection = new Connection(socket, {
      message: (message) => {
        if (message.kind === 'welcome') {
          // What comes in the same chunk is for the session already.
          this.#admit(connection, message);
          welcomed(message);
        } else if (message.kind === 'refusal') {
          const hint = 'its log says more';
          refused(new MmioError('refused', `${name} refused`, { evidence: message.reason, hint }));
        }
      },
      frame: noFrames,
    });
    connection.send({
      kind: 'hello',
      version: BRIDGE_VERSION,
      tool: TOOL,
      token,
      recording: this.#target.recording,
      sender: this.#id,
      captureOffset: this.#kept.start,
      host: hostname(),
      session: this.#session.id,
      devices: this.#session.devices,
    });
    const timer = setTimeout(() => connection.drop('it does not answer'), WELCOME_LIMIT_MS);
    void connection.closed.then((reason) =>
      refused(new MmioError('closed', `${name} closed the connection`, { evidence: reason })),
    );
    try {
      await welcome;
    } catch (error) {
      connection.drop('refused');
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #admit(connection: Connection, welcome: Welcome): void {
    const { captureOffset, windowBytes, version } = welcome;
    if (version !== BRIDGE_VERSION) {
      throw new MmioError('protocol', `the collector speaks version ${version} of the bridge`, {
        evidence: `this is ${TOOL}, which speaks version ${BRIDGE_VERSION}`,
      });
    }
    if (windowBytes < MIN_WINDOW_BYTES) {
      throw new MmioError('protocol', `the collector's window is too small: ${windowBytes}`);
    }
    connection.admit({
      message: (message) => this.#take(connection, message),
      frame: noFrames,
    });
    this.#connection = connection;
    this.#windowBytes = windowBytes;
    this.#acknowledge(captureOffset);
    if (welcome.finished) this.#finish();
    this.#sent = captureOffset;
    this.#asked = -1;
    this.#problem = undefined;
    this.#pump = this.#send(connection);
  }

  #take(connection: Connection, message: BridgeMessage): void {
    switch (message.kind) {
      case 'acknowledgement':
        this.#acknowledge(message.captureOffset);
        return;
      case 'finished':
        this.#finish();
        return;
      case 'request':
        void this.#reply(connection, message.id, message.json);
        return;
      case 'stall':
        if (message.reason !== '') this.#trouble(message.reason);
        else {
          this.#problem = undefined;
          this.#session.notice(`collector ${this.#address.text}: goes on`);
        }
        return;
      case 'refusal':
        connection.drop(message.reason);
        return;
      case 'heartbeat':
        return;
      default:
        throw new MmioError('protocol', `a collector does not send ${message.kind}`);
    }
  }

  #acknowledge(captureOffset: number): void {
    if (!this.#kept.acknowledge(captureOffset)) {
      throw new MmioError('protocol', `the collector acknowledges what it was not sent`, {
        evidence: `offset ${captureOffset}; it was sent ${this.#kept.start} to ${this.#kept.end}`,
      });
    }
    this.#syncs = this.#syncs.filter((sync) => sync > captureOffset);
    this.#settle((waiter) => waiter.captureOffset <= captureOffset);
    this.#wake();
  }

  #finish(): void {
    if (!this.#finishing) return;
    this.#finished = true;
    this.#settle(() => true);
  }

  #settle(isDone: (waiter: Waiter) => boolean): void {
    const done = this.#waiters.filter(isDone);
    this.#waiters = this.#waiters.filter((waiter) => !isDone(waiter));
    for (const { resolve } of done) resolve();
  }

  async #reply(connection: Connection, id: number, json: string): Promise<void> {
    const request = parseRequest(json);
    try {
      if (request === undefined) throw new Error('not a request that is known');
      if (this.#answer === undefined) throw new Error('the recording has not begun');
      const text = JSON.stringify(await this.#answer(request));
      connection.send({ kind: 'reply', id, ok: true, text });
    } catch (error) {
      connection.send({ kind: 'reply', id, ok: false, text: messageOf(error) });
    }
  }

  /** Sends what there is, in order, until the connection ends. */
  async #send(connection: Connection): Promise<void> {
    let finishSent = false;
    while (connection.isOpen) {
      const sync = this.#syncs.find((captureOffset) => captureOffset > this.#asked);
      if (sync === this.#sent) {
        connection.send({
          kind: 'sync',
          captureOffset: sync,
          kept: [this.#committed, this.#asking],
        });
        this.#asked = sync;
        continue;
      }
      const frames = this.#kept.at(this.#sent);
      const onItsWay = this.#sent - this.#kept.start;
      if (frames !== undefined && onItsWay + frames.length <= this.#windowBytes) {
        this.#sent += frames.length;
        await connection.write(frames);
        continue;
      }
      if (this.#finishing && !finishSent && this.#kept.bytes === 0) {
        finishSent = true;
        connection.send({ kind: 'finish', captureOffset: this.#kept.end });
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

/** Whole frames, in pieces of not much more than `PIECE_BYTES`. */
function* piecesOf(frames: Uint8Array): Generator<Uint8Array> {
  let start = 0;
  for (let at = 0; at < frames.length;) {
    at += FRAME_HEADER_BYTES + readU32(frames, at);
    if (at - start < PIECE_BYTES && at < frames.length) continue;
    yield frames.subarray(start, at);
    start = at;
  }
}

function noFrames(): never {
  throw new MmioError('protocol', 'a collector sends no frames of a recording');
}
