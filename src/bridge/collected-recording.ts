/** One recording that a collector takes, over however many connections, one at a time. */
import { TOOL } from '../base/version.ts';
import { MmioError, describeError } from '../base/errors.ts';
import type { ControlRequest } from '../recording/session/control-socket.ts';
import type { RecordingStatus } from '../recording/session/status.ts';
import { BRIDGE_VERSION, type BridgeMessage, type Hello } from '../wire/bridge-messages.ts';
import { CollectedDir, type CollectedStatus } from './collected-dir.ts';
import type { Connection } from './connection.ts';
import { RecordingWriter, WINDOW_BYTES, type RecordingWriterOptions } from './recording-writer.ts';
import { tame } from './output-names.ts';

const REPLY_LIMIT_MS = 4000;

/** A recording whose outputs are known. */
export interface CollectedRecordingState {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** Its host and devices. */
  readonly name: string;
  readonly outputs: readonly string[];
  /** `waiting`: for its sender to come back. */
  readonly state: 'recording' | 'waiting' | 'finished';
}

export interface CollectedRecordingOptions {
  readonly writer: RecordingWriterOptions;
  readonly notice: (message: string) => void;
  /** It begins, or another state of it does. */
  readonly onRecording: (recording: CollectedRecordingState) => void;
  /** Nothing more is to be waited for. */
  readonly onEnd: () => void;
}

interface Asked {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class CollectedRecording {
  readonly #options: CollectedRecordingOptions;
  readonly #id: string;
  readonly #name: string;
  readonly #asked = new Map<number, Asked>();
  #dir: CollectedDir | undefined;
  #connection: Connection | undefined;
  #peer = '';
  #writer: RecordingWriter | undefined;
  /** Connections are made and ended one after another. */
  #turn: Promise<void> = Promise.resolve();
  #problem: string | undefined;
  #nextId = 1;
  #closed = false;

  constructor(hello: Hello, options: CollectedRecordingOptions) {
    this.#options = options;
    this.#id = hello.recording;
    this.#name = `${tame(hello.host)} ${hello.devices.map(tame).join('+') || tame(hello.session)}`;
  }

  get isConnected(): boolean {
    return this.#connection !== undefined;
  }

  /** Takes the place of the connection before, if that is not yet known to be lost. */
  connect(connection: Connection, peer: string, hello: Hello): Promise<void> {
    this.#connection?.drop('its sender has connected again');
    this.#connection = connection;
    const turn = this.#turn.then(() => this.#begin(connection, peer, hello));
    this.#turn = turn
      .then(() => connection.closed.then((reason) => this.#end(connection, reason)))
      .catch(() => this.#giveUp(connection));
    return turn;
  }

  /** It waits for its sender, and is no longer waited with: its state knows all of it. */
  forget(): void {
    this.#turn = this.#turn.then(async () => {
      if (this.#connection === undefined) await this.#leave();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#connection?.drop('the collector ends');
    await this.#turn;
    await this.#dir?.remove();
  }

  async #begin(connection: Connection, peer: string, hello: Hello): Promise<void> {
    if (this.#closed) throw new MmioError('closed', 'the collector ends');
    const writer = await RecordingWriter.open(hello, this.#options.writer, {
      send: (message) => connection.send(message),
      onStall: (reason) => this.#stall(connection, reason),
      onNotice: (text) => this.#say(text),
      onBegin: (outputs) => {
        this.#say(`recording begins: ${outputs.join(', ')}`);
        this.#tell('recording', outputs);
      },
      onFinished: (accesses) => {
        this.#say(`finished: ${accesses} accesses in ${writer.outputs.join(', ')}`);
        this.#tell('finished', writer.outputs);
      },
      onFailure: (error) => {
        const reason = describeError(error);
        connection.drop(reason, { kind: 'refusal', reason });
      },
    });
    this.#writer = writer;
    this.#peer = peer;
    this.#problem = undefined;
    this.#dir ??= await CollectedDir.create(hello, (request) => this.#answer(request));
    connection.admit({
      message: (message) => this.#take(writer, message),
      frame: (payload) => writer.takeFrame(payload),
    });
    if (writer.outputs.length > 0) {
      this.#say(`goes on from ${peer}`);
      this.#tell(writer.finished ? 'finished' : 'recording', writer.outputs);
    } else this.#say(`connected from ${peer}`);
    connection.send({
      kind: 'welcome',
      version: BRIDGE_VERSION,
      tool: TOOL,
      captureOffset: writer.captureOffset,
      windowBytes: WINDOW_BYTES,
      finished: writer.finished,
    });
  }

  #take(writer: RecordingWriter, message: BridgeMessage): void {
    switch (message.kind) {
      case 'sync':
      case 'finish':
        writer.takeMessage(message);
        return;
      case 'reply':
        this.#settle(message);
        return;
      case 'refusal':
        throw new MmioError('refused', message.reason);
      case 'heartbeat':
        return;
      default:
        throw new MmioError('protocol', `a sender does not send ${message.kind} here`);
    }
  }

  async #end(connection: Connection, reason: string): Promise<void> {
    for (const { reject } of this.#asked.values()) reject(new Error('the connection was lost'));
    this.#asked.clear();
    const writer = this.#writer;
    await writer?.close();
    this.#writer = undefined;
    const finished = writer?.finished ?? false;
    if (this.#connection === connection) this.#connection = undefined;
    if (finished && this.#connection === undefined) return this.#leave();
    if (this.#closed) return;
    this.#problem = reason;
    if (finished) return;
    this.#say(`connection lost: ${reason}; its sender can come back`);
    const outputs = writer?.outputs ?? [];
    if (outputs.length > 0) this.#tell('waiting', outputs);
  }

  /** It was refused, and has been told so. */
  async #giveUp(connection: Connection): Promise<void> {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    if (this.#writer === undefined) await this.#leave();
  }

  async #leave(): Promise<void> {
    await this.#dir?.remove();
    this.#dir = undefined;
    // Its sender, back meanwhile, waits for its turn here: two of one name would share the folder.
    if (this.#connection === undefined) this.#options.onEnd();
  }

  #stall(connection: Connection, reason: string | undefined): void {
    this.#problem = reason;
    this.#say(reason === undefined ? 'the output has room again' : `waiting for room: ${reason}`);
    connection.send({ kind: 'stall', reason: reason ?? '' });
  }

  #tell(state: CollectedRecordingState['state'], outputs: readonly string[]): void {
    this.#options.onRecording({ id: this.#id, name: this.#name, outputs, state });
    this.#dir?.setOutputs(outputs);
  }

  #say(what: string): void {
    this.#options.notice(`${this.#name}: ${what}`);
  }

  async #answer(request: ControlRequest): Promise<unknown> {
    if (request.request !== 'status') return this.#ask(request);
    const recorder = this.isConnected ? await this.#ask(request).catch(() => null) : null;
    const status: CollectedStatus = {
      peer: this.isConnected ? this.#peer : null,
      problem: this.#problem ?? null,
      accesses: this.#writer?.accesses ?? 0,
      outputs: this.#writer?.outputs ?? [],
      recorder: recorder as RecordingStatus | null,
    };
    return status;
  }

  #ask(request: ControlRequest): Promise<unknown> {
    const connection = this.#connection;
    if (connection === undefined) {
      return Promise.reject(new Error(`there is no connection: ${this.#problem ?? 'not yet'}`));
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        reject(new Error('the recorder does not answer'));
      }, REPLY_LIMIT_MS);
      const settled =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      this.#asked.set(id, { resolve: settled(resolve), reject: settled(reject) });
      connection.send({ kind: 'request', id, json: JSON.stringify(request) });
    });
  }

  #settle(reply: Extract<BridgeMessage, { kind: 'reply' }>): void {
    const asked = this.#asked.get(reply.id);
    this.#asked.delete(reply.id);
    if (!reply.ok) asked?.reject(new Error(reply.text));
    else asked?.resolve(JSON.parse(reply.text));
  }
}
