/**
 * The wire of QEMU's guest agent (QEMU's `docs/interop/qemu-ga` and `qga/qapi-schema.json`): JSON in
 * lines, one command at a time, replies without an id. What tells a late reply of a command that was
 * given up from the one that is waited for is `guest-sync-delimited`: its reply begins behind a byte
 * 0xff, which is in no JSON, and carries our number.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { escapeBytes } from '../../base/escape.ts';
import { log } from '../../base/log.ts';
import { parseAddress } from '../address.ts';
import { LineReader } from '../line-reader.ts';
import { isObject } from '../protocol.ts';
import { Waiter, type WaitOptions } from '../waiter.ts';

/** Ends whatever the other side's parser is in the middle of. */
const DELIMITER = 0xff;
const CONNECT_LIMIT_MS = 5000;
/** An agent that is there answers a sync in milliseconds; one that just starts may need another. */
const SYNC_LIMIT_MS = 1000;

export const AGENT_HINT =
  'is qemu-guest-agent installed and running in the guest, and does the VM have the port org.qemu.guest_agent.0?';

interface Pending {
  readonly command: string;
  readonly waiter: Waiter<unknown>;
}

export class AgentChannel implements AsyncDisposable {
  readonly #address: string;
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  readonly #reader = new LineReader();
  #failure: MmioError | undefined;
  #pending: Pending | undefined;
  /** The number that the next delimited reply must carry; undefined while none is waited for. */
  #syncing: number | undefined;
  /** Replies of before may still come: nothing is sent until a sync is answered. */
  #inSync = false;
  #nextSync = 1 + Math.floor(Math.random() * 2 ** 30);
  #last: Promise<unknown> = Promise.resolve();

  /**
   * Connects to the socket of the agent's chardev. Whether an agent is behind it only an answer
   * tells. Throws MmioError `usage`, `not-found`, `refused`, `io`.
   */
  static async connect(address: string): Promise<AgentChannel> {
    const socket = connectSocket(parseAddress(address));
    const ready = new Waiter<void>(
      { timeoutMs: CONNECT_LIMIT_MS },
      () => new MmioError('timeout', `no connection to the guest agent's socket ${address}`),
    );
    socket.once('connect', () => ready.resolve());
    socket.once('error', (error) => ready.fail(connectFailure(address, error)));
    try {
      await ready.promise;
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return new AgentChannel(address, socket);
  }

  private constructor(address: string, socket: Socket) {
    this.#address = address;
    this.#socket = socket;
    this.#closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#fail(new MmioError('closed', "the guest agent's connection was closed"));
        resolve();
      });
    });
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('error', (error) =>
      this.#fail(
        new MmioError('closed', "the guest agent's connection was lost", {
          evidence: `${address}: ${error.message}`,
          hint: 'QEMU has ended, or its chardev was closed',
          cause: error,
        }),
      ),
    );
  }

  /**
   * Runs one command; those that are asked for meanwhile wait for their turn. The limit is for this
   * command alone. Throws MmioError `refused` with the agent's own words, `timeout`, `closed`,
   * `protocol`; or the signal's reason.
   */
  execute(
    command: string,
    args: Readonly<Record<string, unknown>> | undefined,
    options: WaitOptions & { readonly timeoutMs: number },
  ): Promise<unknown> {
    const turn = this.#last.then(() => this.#run(command, args, options));
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #run(
    command: string,
    args: Readonly<Record<string, unknown>> | undefined,
    options: WaitOptions & { readonly timeoutMs: number },
  ): Promise<unknown> {
    const deadline = performance.now() + options.timeoutMs;
    const { signal } = options;
    for (;;) {
      const leftMs = deadline - performance.now();
      if (this.#inSync) {
        return this.#ask(command, args, { ...(signal && { signal }), timeoutMs: leftMs });
      }
      await this.#sync(Math.min(leftMs, SYNC_LIMIT_MS), leftMs <= SYNC_LIMIT_MS, signal);
    }
  }

  /** @param last whether no further try follows */
  async #sync(timeoutMs: number, last: boolean, signal: AbortSignal | undefined): Promise<void> {
    const id = this.#nextSync++;
    this.#syncing = id;
    this.#write(Buffer.of(DELIMITER));
    try {
      const limit = { ...(signal && { signal }), timeoutMs };
      await this.#ask('guest-sync-delimited', { id }, limit);
      this.#inSync = true;
    } catch (error) {
      const late = error instanceof MmioError && error.code === 'timeout';
      // An agent that starts just now drops what was sent before, or half of it.
      const garbled = error instanceof MmioError && error.code === 'refused';
      if ((!late && !garbled) || last) throw error;
      if (garbled) await new Promise((resolve) => setTimeout(resolve, 50));
    } finally {
      this.#syncing = undefined;
    }
  }

  #ask(
    command: string,
    args: Readonly<Record<string, unknown>> | undefined,
    options: WaitOptions,
  ): Promise<unknown> {
    const limit = `${Math.round(options.timeoutMs ?? 0)} ms`;
    const waiter = new Waiter<unknown>(
      options,
      () =>
        new MmioError('timeout', `the guest agent did not answer within ${limit}`, {
          evidence: `${command}, through ${this.#address}`,
          hint: AGENT_HINT,
        }),
      (gaveUp) => {
        this.#pending = undefined;
        // Its reply may still come, and would be taken for another's.
        if (gaveUp) this.#inSync = false;
      },
    );
    if (this.#failure !== undefined) waiter.fail(again(this.#failure, command));
    if (waiter.settled) return waiter.promise;
    this.#pending = { command, waiter };
    this.#write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    return waiter.promise;
  }

  #write(data: string | Buffer): void {
    if (this.#failure !== undefined) return;
    log('agent', () => `→ ${typeof data === 'string' ? data.trimEnd() : escapeBytes(data, 20)}`);
    this.#socket.write(data);
  }

  /** The agent has gone (the guest was reset, its service restarted): nobody answers any more. */
  lost(reason: string): void {
    this.#inSync = false;
    this.#pending?.waiter.fail(
      new MmioError('closed', `the guest agent has gone: ${reason}`, {
        evidence: this.#pending.command,
      }),
    );
  }

  #onData(chunk: Buffer): void {
    try {
      for (const line of this.#reader.push(chunk)) this.#onLine(line);
    } catch (error) {
      this.#fail(
        error instanceof MmioError
          ? error
          : new MmioError('protocol', "the guest agent's reply could not be read", {
              evidence: messageOf(error),
            }),
      );
    }
  }

  #onLine(line: Buffer): void {
    log('agent', () => `← ${escapeBytes(line.subarray(0, 500), 500)}`);
    const delimiter = line.lastIndexOf(DELIMITER);
    const pending = this.#pending;
    if (pending === undefined) {
      // Nobody asked: what comes next may be as little ours.
      this.#inSync = false;
      return;
    }
    // While a sync is waited for, what has no delimiter is of before, or noise.
    if (this.#syncing !== undefined && delimiter === -1) return;
    const text = line.subarray(delimiter + 1).toString('utf8');
    let reply: unknown;
    try {
      reply = JSON.parse(text);
    } catch {
      reply = undefined;
    }
    if (!isObject(reply)) {
      if (this.#syncing !== undefined) return;
      this.#inSync = false;
      pending.waiter.fail(
        new MmioError('protocol', "the guest agent's reply is no JSON object", {
          evidence: `${pending.command}: ${escapeBytes(line.subarray(0, 200), 200)}`,
        }),
      );
      return;
    }
    const { error } = reply;
    if (isObject(error)) {
      pending.waiter.fail(
        new MmioError('refused', `the guest agent refused ${pending.command}`, {
          evidence: `${wordOf(error['class'])}: ${wordOf(error['desc'])}`,
          hint: hintFor(wordOf(error['class']), wordOf(error['desc'])),
        }),
      );
      return;
    }
    if (this.#syncing !== undefined) {
      if (reply['return'] === this.#syncing) pending.waiter.resolve(undefined);
      return;
    }
    if (!('return' in reply)) {
      this.#inSync = false;
      pending.waiter.fail(
        new MmioError('protocol', "the guest agent's reply has neither return nor error", {
          evidence: `${pending.command}: ${text.slice(0, 200)}`,
        }),
      );
      return;
    }
    pending.waiter.resolve(reply['return']);
  }

  #fail(failure: MmioError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#socket.destroy();
    const pending = this.#pending;
    pending?.waiter.fail(again(failure, pending.command));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new MmioError('closed', "the guest agent's connection was closed"));
    await this.#closed;
  }
}

function again(failure: MmioError, command: string): MmioError {
  const evidence = [command, failure.evidence].filter(Boolean).join(': ');
  return new MmioError(failure.code, failure.message, { evidence, hint: failure.hint });
}

function wordOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value ?? null);
}

function hintFor(kind: string, words: string): string | undefined {
  if (kind === 'CommandNotFound' || /has been disabled/.test(words)) {
    return 'the agent in this guest does not offer it: look at BLACKLIST_RPC (or block-rpcs, allow-rpcs) of its configuration';
  }
  if (/No such file|cannot find the (?:file|path)/i.test(words)) {
    return 'paths are those of the guest; a program needs its full path where the agent has no PATH';
  }
  return undefined;
}

function connectFailure(address: string, error: Error): MmioError {
  const code = systemCodeOf(error);
  const evidence = `${address}: ${error.message}`;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return new MmioError('not-found', "nobody listens on the guest agent's socket", {
      evidence,
      hint: 'start QEMU with -chardev socket,id=qga,path=PATH,server=on,wait=off -device virtio-serial -device virtserialport,chardev=qga,name=org.qemu.guest_agent.0',
      cause: error,
    });
  }
  return new MmioError('io', "cannot connect to the guest agent's socket", {
    evidence,
    cause: error,
  });
}
