/**
 * The recorder's end of the plugin's socket: listens, greets, takes the messages apart. One plugin
 * is heard at a time; who says what no plugin says is sent away, with the reason.
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { MmioError, messageOf } from '../../../base/errors.ts';
import { log } from '../../../base/log.ts';
import type { Notice } from '../../../base/notice.ts';
import type { SessionFolder } from '../../session/session-folder.ts';
import {
  HEAD_BYTES,
  MAX_BODY_BYTES,
  RECORD_BYTES,
  WIRE_VERSION,
  WireType,
  ranges,
  readHello,
  refused,
  welcome,
  type GuestRange,
  type Hello,
} from '../../../sources/plugin/wire.ts';

const GREETING_MS = 5000;

export interface LinkListener {
  /** Whole messages after the greeting; `body` is the listener's to keep. */
  onMessage(type: number, body: Buffer): void;
  /** The plugin's end of the connection is closed, and all that it sent has been told. */
  onClose(): void;
}

export interface LinkOptions {
  /** What a vCPU does whose buffer is full. */
  readonly overflow: 'wait' | 'count';
  readonly onProblem: (message: string) => void;
  /** QEMU's name of what it emulates: a plugin of another is sent away. */
  readonly target: string;
}

export class PluginLink {
  readonly #server: Server;
  readonly #path: string;
  readonly #options: LinkOptions;
  #listener: LinkListener | undefined;
  #socket: Socket | undefined;
  #hello: Hello | undefined;
  #serial = 0;
  #recording = true;
  #ranges: readonly GuestRange[] | undefined;

  private constructor(path: string, options: LinkOptions) {
    this.#path = path;
    this.#options = options;
    this.#server = createServer((socket) => this.#greet(socket));
  }

  /** Begins to listen; a socket that is left of a recorder before us is replaced. */
  static async listen(path: string, options: LinkOptions): Promise<PluginLink> {
    rmSync(path, { force: true });
    const link = new PluginLink(path, options);
    await new Promise<void>((resolve, reject) => {
      link.#server.once('error', reject);
      link.#server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
    return link;
  }

  /** What the plugin said of itself when it connected last. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  get connected(): boolean {
    return this.#socket !== undefined;
  }

  /** From now on messages are told; those before are of no recording. */
  listenWith(listener: LinkListener): void {
    this.#listener = listener;
  }

  /** What the plugin is to tell of; it is told again to one that connects again. */
  want(list: readonly GuestRange[], recording = true): void {
    log('plugin', () => `${recording ? 'records' : 'counts'} ${list.length} ranges from now on`);
    this.#ranges = list;
    this.#recording = recording;
    this.#socket?.write(ranges(++this.#serial, recording, list));
  }

  /** Off: accesses are numbered only. */
  record(on: boolean): void {
    if (this.#ranges !== undefined) this.want(this.#ranges, on);
  }

  /** While it is not heard, its buffers fill, and then its vCPUs do as `overflow` says. */
  hear(on: boolean): void {
    if (on) this.#socket?.resume();
    else this.#socket?.pause();
  }

  #greet(socket: Socket): void {
    let bytes = Buffer.alloc(0);
    const sendAway = (why: string) => {
      this.#options.onProblem(`a connection to the plugin's socket was refused: ${why}`);
      socket.removeAllListeners('data');
      socket.end(refused(why), () => socket.destroy());
    };
    const late = setTimeout(() => sendAway('it said no hello'), GREETING_MS).unref();
    socket.on('error', () => socket.destroy());
    socket.once('close', () => clearTimeout(late));
    socket.on('data', (chunk) => {
      bytes = Buffer.concat([bytes, chunk]);
      if (bytes.length < HEAD_BYTES) return;
      const end = HEAD_BYTES + bytes.readUInt32LE(4);
      if (bytes.readUInt32LE(0) === WireType.hello && end <= 256 && bytes.length < end) return;
      clearTimeout(late);
      try {
        // Of garbage the beginning is shown.
        const isHello = bytes.readUInt32LE(0) === WireType.hello && end <= 256;
        const hello = readHello(isHello ? bytes.subarray(HEAD_BYTES, end) : bytes);
        this.#requireFitting(hello);
        socket.removeAllListeners('data');
        this.#welcome(socket, hello, bytes.subarray(end));
      } catch (error) {
        const evidence = error instanceof MmioError ? error.evidence : undefined;
        sendAway(evidence === undefined ? messageOf(error) : `${messageOf(error)}: ${evidence}`);
      }
    });
  }

  #requireFitting(hello: Hello): void {
    const { target } = this.#options;
    if (hello.version !== WIRE_VERSION || hello.recordBytes !== RECORD_BYTES) {
      const theirs = `its version is ${hello.version}, ours ${WIRE_VERSION}`;
      throw new Error(`the plugin is of another mmiobridge (${theirs}): build it again with make`);
    }
    if (hello.target !== target) {
      throw new Error(`the plugin is in a QEMU for ${hello.target}, not for ${target}`);
    }
    if (this.#socket !== undefined) throw new Error('another QEMU is being recorded here');
  }

  #welcome(socket: Socket, hello: Hello, rest: Buffer): void {
    this.#socket = socket;
    this.#hello = hello;
    log('plugin', () => `connected: ${JSON.stringify(hello)}`);
    socket.write(welcome(this.#options.overflow));
    if (this.#ranges !== undefined) this.want(this.#ranges, this.#recording);
    const take = this.#taker(socket);
    take(rest);
    socket.on('data', take);
    socket.once('close', () => {
      if (this.#socket !== socket) return;
      log('plugin', () => 'the connection is closed');
      this.#socket = undefined;
      this.#listener?.onClose();
    });
  }

  /** Takes chunks apart into messages. */
  #taker(socket: Socket): (chunk: Buffer) => void {
    let parts: Buffer[] = [];
    let have = 0;
    let need = HEAD_BYTES;
    return (chunk) => {
      parts.push(chunk);
      have += chunk.length;
      if (have < need) return;
      let bytes = parts.length === 1 ? chunk : Buffer.concat(parts);
      for (need = HEAD_BYTES; bytes.length >= HEAD_BYTES; need = HEAD_BYTES) {
        const type = bytes.readUInt32LE(0);
        const length = bytes.readUInt32LE(4);
        if (!isPlugins(type, length)) {
          this.#options.onProblem(
            `the plugin sent something that is not one of its messages (type ${type}, ${length} bytes): its connection is closed`,
          );
          socket.destroy();
          return;
        }
        need = HEAD_BYTES + length;
        if (bytes.length < need) break;
        if (type !== WireType.records && type !== WireType.tick) {
          log('plugin', () => `message ${type}, ${length} bytes`);
        }
        this.#listener?.onMessage(type, bytes.subarray(HEAD_BYTES, need));
        bytes = bytes.subarray(need);
      }
      parts = bytes.length === 0 ? [] : [bytes];
      have = bytes.length;
    };
  }

  /** Hears no more, and nobody else. */
  close(): void {
    this.#listener = undefined;
    this.#server.close();
    this.#socket?.destroy();
    rmSync(this.#path, { force: true });
  }
}

function isPlugins(type: number, length: number): boolean {
  switch (type) {
    case WireType.records:
      return length % RECORD_BYTES === 0 && length <= MAX_BODY_BYTES;
    case WireType.tick:
    case WireType.rangesTaken:
      return length === 8;
    case WireType.farewell:
      return length % 4 === 0 && length <= MAX_BODY_BYTES;
    default:
      return false;
  }
}

/** Listens in the folder of a recording. */
export function listenForPlugin(
  { pluginSocket }: SessionFolder,
  info: {
    readonly overflow: 'pause' | 'drop';
    readonly target: string;
    readonly notice: Notice;
  },
): Promise<PluginLink> {
  return PluginLink.listen(pluginSocket, {
    overflow: info.overflow === 'drop' ? 'count' : 'wait',
    target: info.target,
    onProblem: info.notice,
  });
}
