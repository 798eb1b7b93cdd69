/**
 * The collector's end of the bridge: takes recordings from any number of senders at once, and writes
 * each with the sinks that `record` has. A peer that breaks the rules is dropped, with the reason
 * in the log; the others do not notice.
 */
import type { Server, Socket } from 'node:net';
import { TOOL } from '../base/version.ts';
import { MmioError, describeError } from '../base/errors.ts';
import { BRIDGE_VERSION, type Hello } from '../wire/bridge-messages.ts';
import { requireConfidential, type BridgeAddress } from './address.ts';
import { StateFolder } from './collected-state.ts';
import { CollectedRecording, type CollectedRecordingState } from './collected-recording.ts';
import { Connection } from './connection.ts';
import type { RecordingWriterOptions } from './recording-writer.ts';
import { listenOn, type Certificate } from './listener.ts';
import { checkPattern } from './output-names.ts';
import { tokensEqual } from './token.ts';

/** From the first byte to the hello, TLS included. */
const HELLO_LIMIT_MS = 5000;
/** The oldest of those that have not said hello makes room for one more. */
const MAX_STRANGERS = 64;
/** Recordings without a connection that `status` still tells of. */
const MAX_WAITING = 64;

export interface CollectorOptions extends Omit<RecordingWriterOptions, 'states'> {
  readonly addresses: readonly BridgeAddress[];
  /** undefined where there is nothing but Unix sockets. */
  readonly token: string | undefined;
  readonly certificate: Certificate | undefined;
  readonly insecurePlaintext: boolean;
  readonly stateDir: string;
  /** So many recordings at once. */
  readonly maxSessions: number;
  readonly notice: (message: string) => void;
  /** A recording begins, or another state of it does. */
  readonly onRecording: (recording: CollectedRecordingState) => void;
}

export class Collector {
  readonly #options: CollectorOptions;
  readonly #states: StateFolder;
  readonly #servers: Server[] = [];
  /** Connections whose peers have not said who they are, oldest first. */
  readonly #strangers = new Set<Connection>();
  /** By `Hello.recording`; also those that wait for their sender. */
  readonly #recordings = new Map<string, CollectedRecording>();
  #closed = false;

  private constructor(options: CollectorOptions, states: StateFolder) {
    this.#options = options;
    this.#states = states;
  }

  /** Throws MmioError `usage` or `io`; then nothing is listened on. */
  static async open(options: CollectorOptions): Promise<Collector> {
    for (const pattern of options.patterns) checkPattern(pattern);
    for (const address of options.addresses) {
      requireConfidential(address, options.insecurePlaintext);
      if (address.kind !== 'unix' && options.token === undefined) {
        throw new MmioError('usage', `${address.text} needs a token`, {
          hint: 'name one with --token-file, or in MMIOBRIDGE_TOKEN',
        });
      }
    }
    const collector = new Collector(options, await StateFolder.open(options.stateDir));
    try {
      for (const address of options.addresses) {
        const server = await listenOn(address, options.certificate, (socket) =>
          collector.#welcome(socket, address),
        );
        collector.#servers.push(server);
      }
    } catch (error) {
      await collector.close();
      throw error;
    }
    return collector;
  }

  /** Lets go of all senders: they go on when there is a collector again. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const server of this.#servers) server.close();
    for (const stranger of this.#strangers) stranger.drop('the collector ends');
    await Promise.all([...this.#recordings.values()].map((recording) => recording.close()));
    await this.#states.close();
  }

  #welcome(socket: Socket, address: BridgeAddress): void {
    const peer = peerOf(socket, address);
    const connection: Connection = new Connection(socket, {
      message: (message) => {
        if (message.kind !== 'hello') {
          throw new MmioError('protocol', `it began with ${message.kind} in place of a hello`);
        }
        clearTimeout(timer);
        this.#strangers.delete(connection);
        known = true;
        this.#admit(connection, peer, address, message);
      },
      frame: () => {
        throw new MmioError('protocol', 'it began with a frame in place of a hello');
      },
    });
    let known = false;
    const timer = setTimeout(
      () => connection.drop(`it has not said hello within ${HELLO_LIMIT_MS / 1000} s`),
      HELLO_LIMIT_MS,
    );
    void connection.closed.then((reason) => {
      clearTimeout(timer);
      this.#strangers.delete(connection);
      if (!known && !this.#closed) this.#options.notice(`${peer}: dropped: ${reason}`);
    });
    this.#strangers.add(connection);
    const [oldest] = this.#strangers;
    if (this.#strangers.size > MAX_STRANGERS) oldest?.drop('too many that do not say hello');
  }

  #admit(connection: Connection, peer: string, address: BridgeAddress, hello: Hello): void {
    const reason = this.#objection(address, hello);
    if (reason !== undefined) {
      this.#options.notice(`${peer}: refused: ${reason}`);
      connection.drop(reason, { kind: 'refusal', reason });
      return;
    }
    let recording = this.#recordings.get(hello.recording);
    if (recording === undefined) {
      this.#forgetOldest();
      recording = new CollectedRecording(hello, {
        writer: { ...this.#options, states: this.#states },
        notice: this.#options.notice,
        onRecording: this.#options.onRecording,
        onEnd: () => this.#recordings.delete(hello.recording),
      });
      this.#recordings.set(hello.recording, recording);
    }
    // Frames follow the welcome only.
    connection.admit({ message: tooEarly, frame: tooEarly });
    recording.connect(connection, peer, hello).catch((error: unknown) => {
      const words = describeError(error);
      this.#options.notice(`${peer}: refused: ${words}`);
      connection.drop(words, { kind: 'refusal', reason: words });
    });
  }

  /** Many that wait for their senders: the first of them is known from its state when it comes. */
  #forgetOldest(): void {
    const waiting = [...this.#recordings.values()].filter(({ isConnected }) => !isConnected);
    if (waiting.length >= MAX_WAITING) waiting[0]?.forget();
  }

  /** Why this hello is not taken. */
  #objection(address: BridgeAddress, hello: Hello): string | undefined {
    if (hello.version !== BRIDGE_VERSION) {
      return `it speaks version ${hello.version} of the bridge; ${TOOL} here speaks ${BRIDGE_VERSION}`;
    }
    if (address.kind !== 'unix' && !tokensEqual(hello.token, this.#options.token ?? '')) {
      return hello.token === '' ? 'it has no token' : 'its token is wrong';
    }
    const ids = [hello.recording, hello.sender];
    if (!ids.every((id) => /^[0-9a-f]{32}$/.test(id))) return 'its hello has no proper ids';
    const { maxSessions } = this.#options;
    const connected = [...this.#recordings].filter(
      ([id, recording]) => recording.isConnected && id !== hello.recording,
    );
    if (connected.length >= maxSessions) {
      return `${maxSessions} recordings are being taken; no more are allowed (--max-sessions)`;
    }
    return undefined;
  }
}

function tooEarly(message: unknown): void {
  if (typeof message === 'object' && message !== null && 'kind' in message) {
    if (message.kind === 'heartbeat') return;
  }
  throw new MmioError('protocol', 'it did not wait to be welcomed');
}

function peerOf(socket: Socket, address: BridgeAddress): string {
  if (address.kind === 'unix') return address.text;
  return `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? '?'}`;
}
