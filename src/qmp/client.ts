import { connect as connectSocket, type Socket } from 'node:net';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { log } from '../base/log.ts';
import { connectError, parseAddress, SOCKET_IS_HELD, type QmpTarget } from './address.ts';
import { escapeBytes } from '../base/escape.ts';
import { LineReader } from './line-reader.ts';
import { parseMessage, type QmpEvent, type QmpMessage } from './protocol.ts';
import { Waiter, type WaitOptions } from './waiter.ts';

export type { QmpEvent } from './protocol.ts';
export type { WaitOptions } from './waiter.ts';

export interface QmpConnectOptions {
  /** For the connection, the greeting and the negotiation together; default 5000. */
  readonly connectTimeoutMs?: number;
  /** For a command that names no limit of its own; default 10000. */
  readonly commandTimeoutMs?: number;
  /** Ends the attempt to connect; it has no say afterwards. */
  readonly signal?: AbortSignal;
}

interface Command {
  readonly name: string;
  readonly waiter: Waiter<unknown>;
}

interface EventWaiter {
  readonly names: readonly string[];
  readonly waiter: Waiter<QmpEvent>;
}

type Phase = 'connecting' | 'greeting' | 'negotiating' | 'ready' | 'closed';

const NEGOTIATION_ID = 0;

/**
 * A client of QEMU's machine protocol (QEMU's `docs/interop/qmp-spec`, without out-of-band
 * execution). Every failure of the connection reaches `closed`, each command and each waiter at
 * once; nothing is queued here, so a flood of events costs its listeners' time and no memory.
 */
export class QmpClient implements AsyncDisposable {
  /** Settles once; with undefined if we closed. Never rejects. */
  readonly closed: Promise<MmioError | undefined>;
  readonly #address: string;
  readonly #target: QmpTarget;
  readonly #commandTimeoutMs: number;
  readonly #socket: Socket;
  readonly #socketClosed: Promise<void>;
  readonly #handshake: Waiter<void>;
  readonly #commands = new Map<number, Command>();
  readonly #abandoned = new Set<number>();
  readonly #eventWaiters = new Set<EventWaiter>();
  readonly #listeners = new Set<{ readonly call: (event: QmpEvent) => void }>();
  #settleClosed: (failure: MmioError | undefined) => void = () => {};
  #phase: Phase = 'connecting';
  #nextId = NEGOTIATION_ID + 1;
  #version = '';
  #versionNumber: readonly [number, number, number] = [0, 0, 0];
  #strayReplies = 0;
  #listenerErrors = 0;
  #lastListenerError: unknown;

  /**
   * Connects and negotiates. `address` is a path, `unix:PATH`, `tcp:HOST:PORT` or `HOST:PORT`.
   * Throws MmioError: `usage` (the address), `not-found`, `refused`, `timeout`, `closed` (the peer
   * left in the handshake), `protocol` (it does not speak QMP), `io`; or the signal's reason.
   */
  static async connect(address: string, options: QmpConnectOptions = {}): Promise<QmpClient> {
    options.signal?.throwIfAborted();
    const client = new QmpClient(address, parseAddress(address), options);
    try {
      await client.#handshake.promise;
    } catch (error) {
      await client.close();
      throw error;
    }
    return client;
  }

  private constructor(address: string, target: QmpTarget, options: QmpConnectOptions) {
    this.#address = address;
    this.#target = target;
    this.#commandTimeoutMs = options.commandTimeoutMs ?? 10_000;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
    const timeoutMs = options.connectTimeoutMs ?? 5000;
    const { signal } = options;
    this.#handshake = new Waiter(signal === undefined ? { timeoutMs } : { timeoutMs, signal }, () =>
      this.#handshakeTimeout(timeoutMs),
    );
    const reader = new LineReader();
    this.#socket = connectSocket(target);
    this.#socketClosed = new Promise((resolve) => {
      this.#socket.once('close', () => {
        this.#fail(new MmioError('closed', 'QMP: the connection was lost'));
        resolve();
      });
    });
    this.#socket.on('connect', () => {
      if (this.#phase === 'connecting') this.#phase = 'greeting';
    });
    this.#socket.on('data', (chunk: Buffer) => this.#onData(reader, chunk));
    this.#socket.on('end', () => this.#onEnd(reader.unfinished));
    this.#socket.on('error', (error) => this.#onSocketError(error));
  }

  /** `7.2.22 (Debian …)`, from the greeting. */
  get version(): string {
    return this.#version;
  }

  get versionNumber(): readonly [major: number, minor: number, micro: number] {
    return this.#versionNumber;
  }

  get state(): 'ready' | 'closed' {
    return this.#phase === 'closed' ? 'closed' : 'ready';
  }

  /** Replies that no command of ours asked for, duplicates among them; each was ignored. */
  get strayReplies(): number {
    return this.#strayReplies;
  }

  /** How often a listener threw, and what it threw last. */
  get listenerErrors(): { readonly count: number; readonly last: unknown } {
    return { count: this.#listenerErrors, last: this.#lastListenerError };
  }

  /**
   * Runs a command; resolves to its `return` as QEMU sent it, unchecked. Rejects with MmioError
   * `refused` (QEMU's error, as `class: desc`), `timeout` (the reply, should it come, is dropped;
   * the command may still take effect), `closed`, `protocol`; or the signal's reason.
   */
  execute<T = unknown>(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options: WaitOptions = {},
  ): Promise<T> {
    const id = this.#nextId++;
    const timeoutMs = options.timeoutMs ?? this.#commandTimeoutMs;
    const waiter = new Waiter<unknown>(
      { ...options, timeoutMs },
      () =>
        new MmioError('timeout', `QEMU did not answer within ${timeoutMs} ms`, {
          evidence: command,
          hint: 'QEMU may be busy, stopped by a signal, or blocked on its storage',
        }),
      (gaveUp) => {
        if (this.#commands.delete(id) && gaveUp) this.#abandoned.add(id);
      },
    );
    if (!waiter.settled) this.#send(id, { name: command, waiter }, args);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the caller names the shape
    return waiter.promise as Promise<T>;
  }

  /** Runs a command of the human monitor; resolves to what it prints, with LF ends of lines. */
  async hmp(commandLine: string, options: WaitOptions = {}): Promise<string> {
    const text = await this.execute(
      'human-monitor-command',
      { 'command-line': commandLine },
      options,
    );
    if (typeof text === 'string') return text.replaceAll('\r\n', '\n');
    throw new MmioError('protocol', 'QMP: human-monitor-command answered with no text', {
      evidence: `${commandLine}: ${JSON.stringify(text).slice(0, 200)}`,
    });
  }

  /**
   * Calls `listener` with each event as it comes; returns what ends that. What it throws is counted
   * in `listenerErrors` and goes no further.
   */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  /**
   * Resolves to the next event of that name (or of one of those). Registers at the call, so nothing
   * between the call and the await is missed:
   * `const stopped = client.event('STOP'); await client.execute('stop'); await stopped`.
   * No time limit unless one is given. Rejects with MmioError `timeout`, `closed`, `protocol`, or
   * the signal's reason; nobody needs to await it after a failure elsewhere.
   */
  event(name: string | readonly string[], options: WaitOptions = {}): Promise<QmpEvent> {
    const names = typeof name === 'string' ? [name] : name;
    const wanted = names.join(' or ');
    const waiter: Waiter<QmpEvent> = new Waiter<QmpEvent>(
      options,
      () =>
        new MmioError('timeout', `QEMU did not report ${wanted} within ${options.timeoutMs} ms`, {
          evidence: wanted,
        }),
      () => this.#eventWaiters.delete(entry),
    );
    const entry = { names, waiter };
    // Whoever registered early may fail before it awaits: that is no unhandled rejection.
    waiter.promise.catch(() => {});
    if (this.#phase === 'closed') waiter.fail(closedAlready(wanted));
    else if (!waiter.settled) this.#eventWaiters.add(entry);
    return waiter.promise;
  }

  /** Closes the connection; pending commands and waiters reject with `closed`. QEMU goes on. */
  async close(): Promise<void> {
    this.#fail(undefined);
    await this.#socketClosed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #send(id: number, command: Command, args: Readonly<Record<string, unknown>> | undefined): void {
    if (this.#phase === 'closed') {
      command.waiter.fail(closedAlready(command.name));
      return;
    }
    let line: string;
    try {
      line = JSON.stringify({ execute: command.name, arguments: args, id });
    } catch (error) {
      const what = `the arguments of ${command.name} cannot be sent as JSON`;
      const detail = { evidence: messageOf(error), cause: error };
      command.waiter.fail(new MmioError('usage', what, detail));
      return;
    }
    this.#commands.set(id, command);
    log('qmp', () => `→ ${line}`);
    this.#socket.write(`${line}\n`);
  }

  #onData(reader: LineReader, chunk: Buffer): void {
    try {
      for (const line of reader.push(chunk)) {
        log('qmp', () => `← ${line.toString()}`);
        const message = parseMessage(line);
        if (message !== undefined) this.#onMessage(message, line);
        if (this.#phase === 'closed') return;
      }
    } catch (error) {
      this.#fail(
        error instanceof MmioError
          ? error
          : new MmioError('protocol', 'QMP: a message could not be read', { cause: error }),
      );
    }
  }

  #onMessage(message: QmpMessage, line: Buffer): void {
    switch (message.kind) {
      case 'greeting':
        if (this.#phase !== 'greeting') throw outOfTurn('a second greeting', line);
        this.#version = message.version;
        this.#versionNumber = message.versionNumber;
        this.#phase = 'negotiating';
        this.#socket.write(`{"execute":"qmp_capabilities","id":${NEGOTIATION_ID}}\n`);
        return;
      case 'event':
        this.#onEvent(message.event);
        return;
      case 'return':
      case 'error':
        if (this.#phase === 'greeting') throw outOfTurn('a reply before the greeting', line);
        this.#onReply(message);
    }
  }

  #onReply(reply: Extract<QmpMessage, { kind: 'return' | 'error' }>): void {
    if (this.#phase === 'negotiating' && reply.id === NEGOTIATION_ID) {
      if (reply.kind === 'return') {
        this.#phase = 'ready';
        this.#handshake.resolve();
      } else {
        this.#fail(refusal('qmp_capabilities', reply));
      }
      return;
    }
    const id = reply.id;
    const command = typeof id === 'number' ? this.#commands.get(id) : undefined;
    if (command !== undefined) {
      if (reply.kind === 'return') command.waiter.resolve(reply.value);
      else command.waiter.fail(refusal(command.name, reply));
    } else if (typeof id !== 'number' || !this.#abandoned.delete(id)) {
      this.#strayReplies++;
    }
  }

  #onEvent(event: QmpEvent): void {
    for (const entry of this.#eventWaiters) {
      if (entry.names.includes(event.name)) entry.waiter.resolve(event);
    }
    // A copy: one that a listener adds now waits for the next event.
    const listeners = [...this.#listeners];
    for (const entry of listeners) {
      try {
        entry.call(event);
      } catch (error) {
        this.#listenerErrors++;
        this.#lastListenerError = error;
      }
    }
  }

  #onEnd(unfinished: Buffer): void {
    const cut = unfinished.length > 0;
    const when =
      this.#phase === 'greeting'
        ? ' before its greeting'
        : this.#phase === 'negotiating'
          ? ' during the negotiation'
          : '';
    this.#fail(
      new MmioError('closed', `QEMU closed the QMP connection${when}`, {
        evidence: cut ? `${this.#address}, in: ${escapeBytes(unfinished, 200)}` : this.#address,
        hint: 'QEMU has ended, or its monitor was closed',
      }),
    );
  }

  #onSocketError(error: Error): void {
    if (this.#phase === 'connecting') {
      this.#fail(connectError(this.#address, this.#target, error));
      return;
    }
    const code = systemCodeOf(error);
    const gone = code === 'EPIPE' || code === 'ECONNRESET';
    this.#fail(
      new MmioError(gone ? 'closed' : 'io', 'QMP: the connection was lost', {
        evidence: `${this.#address}: ${error.message}`,
        hint: gone ? 'QEMU has ended, or its monitor was closed' : undefined,
        cause: error,
      }),
    );
  }

  #handshakeTimeout(timeoutMs: number): MmioError {
    const missing =
      this.#phase === 'connecting'
        ? 'no connection'
        : this.#phase === 'greeting'
          ? 'no greeting'
          : 'no reply to qmp_capabilities';
    return new MmioError('timeout', `${missing} from the QMP server within ${timeoutMs} ms`, {
      evidence: this.#address,
      hint: this.#phase === 'greeting' ? SOCKET_IS_HELD : 'QEMU may be busy, or stopped',
    });
  }

  /** The one way out. `undefined`: we close. Everyone who waits gets an error of their own. */
  #fail(failure: MmioError | undefined): void {
    if (this.#phase === 'closed') return;
    const inHandshake = this.#phase !== 'ready';
    this.#phase = 'closed';
    this.#socket.destroy();
    const error = failure ?? new MmioError('closed', 'QMP: the connection was closed');
    for (const { name, waiter } of this.#commands.values()) waiter.fail(during(name, error));
    for (const { names, waiter } of this.#eventWaiters) {
      waiter.fail(during(names.join(' or '), error));
    }
    if (inHandshake) this.#handshake.fail(error);
    this.#abandoned.clear();
    this.#listeners.clear();
    this.#settleClosed(failure);
  }
}

function closedAlready(what: string): MmioError {
  return new MmioError('closed', 'QMP: the connection is closed', { evidence: what });
}

function during(what: string, failure: MmioError): MmioError {
  return new MmioError(failure.code, `${failure.message} (while waiting for ${what})`, {
    evidence: failure.evidence === undefined ? what : `${what}: ${failure.evidence}`,
    hint: failure.hint,
    cause: failure,
  });
}

function refusal(command: string, reply: { readonly class: string; readonly desc: string }) {
  return new MmioError('refused', `QEMU refused ${command}`, {
    evidence: `${reply.class}: ${reply.desc}`,
  });
}

function outOfTurn(what: string, line: Buffer): MmioError {
  return new MmioError('protocol', `QMP: ${what}`, { evidence: escapeBytes(line, 200) });
}
