import * as fc from 'fast-check';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { RegisterDevice } from '../../../src/vfio-user/device.ts';
import { MessageReader } from '../../../src/vfio-user/message-reader.ts';
import {
  COMMANDS,
  EINVAL,
  EIO,
  EOPNOTSUPP,
  MAX_MESSAGE_BYTES,
  MAX_TRANSFER_BYTES,
  type Message,
} from '../../../src/vfio-user/protocol.ts';
import { RegisterFile } from '../../../src/vfio-user/register-file.ts';
import { Register } from '../../../src/vfio-user/register.ts';
import { VfioUserServer } from '../../../src/vfio-user/server.ts';
import { until } from '../../support/soon.ts';

interface Header {
  readonly id?: number;
  readonly flags?: number;
  /** What the header says; what it is, if left out. */
  readonly size?: number;
}

function message(command: number, payload: Uint8Array = Buffer.alloc(0), header: Header = {}) {
  const bytes = Buffer.alloc(16 + payload.length);
  bytes.writeUInt16LE(header.id ?? 1, 0);
  bytes.writeUInt16LE(command, 2);
  bytes.writeUInt32LE(header.size ?? bytes.length, 4);
  bytes.writeUInt32LE(header.flags ?? 0, 8);
  bytes.set(payload, 16);
  return bytes;
}

const u32 = (...values: readonly number[]) => Buffer.from(Uint32Array.from(values).buffer);

function version(major = 0, data = '{"capabilities":{"max_msg_fds":8}}\0', minor = 0): Buffer {
  const head = Buffer.from(Uint16Array.of(major, minor).buffer);
  return message(COMMANDS.VERSION, Buffer.concat([head, Buffer.from(data)]));
}

const readAt = (offset: number, count: number, region = 0, header: Header = {}) =>
  message(COMMANDS.REGION_READ, u32(offset, 0, region, count), header);
const writeAt = (offset: number, data: Uint8Array, region = 0, header: Header = {}) =>
  message(
    COMMANDS.REGION_WRITE,
    Buffer.concat([u32(offset, 0, region, data.length), data]),
    header,
  );

describe('the reader of messages', () => {
  const NO_REPLY = 0x10;
  const commands = fc.array(
    fc.record({
      id: fc.nat(0xffff),
      command: fc.nat(0xffff),
      wantsReply: fc.boolean(),
      payload: fc.uint8Array({ maxLength: 6000 }),
    }),
    { maxLength: 12 },
  );

  function readAll(reader: MessageReader): Message[] {
    const found: Message[] = [];
    for (let next; (next = reader.next()) !== undefined;) {
      found.push({ ...next, payload: Buffer.from(next.payload) });
    }
    return found;
  }

  test('gives every message whole, wherever the stream is cut', () => {
    fc.assert(
      fc.property(commands, fc.array(fc.nat(20_000)), (sent, places) => {
        const stream = Buffer.concat(
          sent.map(({ id, command, wantsReply, payload }) =>
            message(command, payload, { id, flags: wantsReply ? 0 : NO_REPLY }),
          ),
        );
        const cuts = places.filter((at) => at < stream.length).toSorted((a, b) => a - b);
        const reader = new MessageReader();
        const found: Message[] = [];
        let from = 0;
        for (const to of [...cuts, stream.length]) {
          reader.push(stream.subarray(from, to));
          found.push(...readAll(reader));
          from = to;
        }
        expect(found).toEqual(sent.map((it) => ({ ...it, payload: Buffer.from(it.payload) })));
        expect(reader.heldBytes).toBe(0);
      }),
    );
  });

  test('takes the longest message byte by byte, and none that is longer', () => {
    const longest = writeAt(0, new Uint8Array(MAX_TRANSFER_BYTES).fill(7));
    expect(longest).toHaveLength(MAX_MESSAGE_BYTES);
    const reader = new MessageReader();
    for (let at = 0; at < longest.length - 1; at++) {
      reader.push(longest.subarray(at, at + 1));
      if (reader.next() !== undefined) throw new Error(`a message after ${at + 1} bytes`);
    }
    reader.push(longest.subarray(-1));
    expect(reader.next()?.payload).toHaveLength(MAX_MESSAGE_BYTES - 16);
    reader.push(message(1, undefined, { size: MAX_MESSAGE_BYTES + 1 }));
    expect(() => reader.next()).toThrow(`a message cannot be ${MAX_MESSAGE_BYTES + 1} bytes long`);
  });

  test('gives messages or an error for any bytes, and never more than came', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (chunks) => {
        const reader = new MessageReader();
        let came = 0;
        let taken = 0;
        let failure: unknown;
        for (const chunk of chunks) {
          reader.push(chunk);
          came += chunk.length;
          try {
            for (let next; (next = reader.next()) !== undefined;) taken += 16 + next.payload.length;
          } catch (error) {
            failure = error;
          }
          expect(taken + reader.heldBytes).toBe(came);
          if (failure !== undefined) break;
        }
        expect(failure === undefined || failure instanceof MmioError).toBe(true);
      }),
    );
  });

  test.each<[string, Buffer, string]>([
    ['shorter than its header', message(1, undefined, { size: 15 }), 'cannot be 15 bytes'],
    ['a reply', message(1, undefined, { flags: 1 }), 'a reply to what nobody asked'],
    ['of no known type', message(1, undefined, { flags: 7 }), 'a message of type 7'],
    ['of text', Buffer.from('GET / HTTP/1.1\r\n'), 'cannot be'],
  ])('refuses a message that is %s, and shows it', (_what, bytes, what) => {
    const reader = new MessageReader();
    reader.push(bytes);
    expect(() => reader.next()).toThrow(what);
    expect(() => reader.next()).toThrow(expect.objectContaining({ code: 'protocol' }));
  });
});

let dir: string;
let path: string;
let problems: MmioError[];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  path = join(dir, 's');
  problems = [];
});

afterEach(() => rmSync(dir, { recursive: true }));

function demoDevice(): RegisterDevice {
  const registers = [
    new Register({ offset: 0, width: 4, reset: 0x11223344n }),
    new Register({
      offset: 8,
      width: 4,
      onWrite: () => {
        throw new Error('the register is broken');
      },
    }),
  ];
  const file = new RegisterFile({ sizeBytes: MAX_TRANSFER_BYTES, registers, undeclared: 'memory' });
  return new RegisterDevice({
    vendorId: 0x1234,
    deviceId: 0xbeef,
    bars: [{ registers: file }],
    keepAccesses: true,
  });
}

const serve = (device = demoDevice()) =>
  VfioUserServer.listen(path, device, { onProblem: (problem) => problems.push(problem) });

interface Reply {
  readonly id: number;
  readonly command: number;
  readonly error: number | undefined;
  readonly payload: Buffer;
}

/** A client that sends bytes and takes replies apart. */
class Client implements AsyncDisposable {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  readonly replies: Reply[] = [];
  #held = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      this.#held = Buffer.concat([this.#held, chunk]);
      this.#takeReplies();
    });
  }

  static async connect(): Promise<Client> {
    const socket = createConnection(path);
    const client = new Client(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject);
    });
    return client;
  }

  static async agreed(): Promise<Client> {
    const client = await Client.connect();
    await client.ask(version());
    return client;
  }

  #takeReplies(): void {
    while (this.#held.length >= 16 && this.#held.length >= this.#held.readUInt32LE(4)) {
      const bytes = this.#held.subarray(0, this.#held.readUInt32LE(4));
      this.#held = this.#held.subarray(bytes.length);
      const flags = bytes.readUInt32LE(8);
      this.replies.push({
        id: bytes.readUInt16LE(0),
        command: bytes.readUInt16LE(2),
        error: flags === 0x21 ? bytes.readUInt32LE(12) : flags === 1 ? undefined : -1,
        payload: bytes.subarray(16),
      });
    }
  }

  /** The reply to what is sent. */
  async ask(bytes: Uint8Array): Promise<Reply> {
    const before = this.replies.length;
    this.socket.write(bytes);
    await until('a reply', () => this.replies.length > before || this.socket.closed);
    const reply = this.replies[before];
    if (reply === undefined) throw new Error('the connection was closed without a reply');
    return reply;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }
}

describe('a server', () => {
  test('makes its socket for the owner only, and takes it away again', async () => {
    const before = process.umask();
    {
      await using _server = await serve();
      expect(statSync(path).mode & 0o777).toBe(0o600);
    }
    expect(process.umask()).toBe(before);
    expect(() => statSync(path)).toThrow('ENOENT');
  });

  test.each<[string, () => string, string]>([
    ['where something is', () => (writeFileSync(path, ''), path), 'refused'],
    ['in no folder', () => join(dir, 'none', 's'), 'refused'],
    ['at a path that is too long', () => join(dir, 'x'.repeat(108)), 'usage'],
  ])('cannot be made %s, and says so', async (_what, at, code) => {
    const where = at();
    const made = VfioUserServer.listen(where, demoDevice(), { onProblem: () => undefined });
    await expect(made).rejects.toMatchObject({
      name: 'MmioError',
      code,
      evidence: expect.stringContaining(where),
    });
  });

  test('agrees on a version, and tells what the device is', async () => {
    await using _server = await serve();
    await using client = await Client.connect();
    const agreed = await client.ask(version(0, undefined, 9));
    expect(agreed.payload.toString('latin1')).toBe('\0\0\0\0{"capabilities":{}}\0');
    const device = await client.ask(message(COMMANDS.DEVICE_GET_INFO, u32(16, 0, 0, 0)));
    expect(device.payload).toEqual(u32(16, 3, 9, 5));
    const region = (index: number) =>
      client.ask(message(COMMANDS.DEVICE_GET_REGION_INFO, u32(32, 0, index, 0, 0, 0, 0, 0)));
    expect((await region(0)).payload).toEqual(u32(32, 3, 0, 0, MAX_TRANSFER_BYTES, 0, 0, 0));
    expect((await region(6)).payload).toEqual(u32(32, 0, 6, 0, 0, 0, 0, 0));
    expect((await region(7)).payload).toEqual(u32(32, 3, 7, 0, 256, 0, 0, 0));
    const irq = await client.ask(message(COMMANDS.DEVICE_GET_IRQ_INFO, u32(16, 0, 2, 0)));
    expect(irq.payload).toEqual(u32(16, 0, 2, 0));
    expect(problems).toEqual([]);
  });

  test('reads, writes and resets the device, and answers what it ignores', async () => {
    const device = demoDevice();
    await using _server = await serve(device);
    await using client = await Client.agreed();
    const read = await client.ask(readAt(0, 4, 0, { id: 0xfffe }));
    expect(read).toMatchObject({ id: 0xfffe, command: COMMANDS.REGION_READ, error: undefined });
    expect(read.payload).toEqual(u32(0, 0, 0, 4, 0x11223344));
    const written = await client.ask(writeAt(2, Buffer.of(0xaa, 0xbb)));
    expect(written.payload).toEqual(u32(2, 0, 0, 2));
    expect((await client.ask(readAt(0, 4))).payload).toEqual(u32(0, 0, 0, 4, 0xbbaa3344));
    expect(await client.ask(message(COMMANDS.DEVICE_RESET))).toMatchObject({ error: undefined });
    expect((await client.ask(readAt(0, 4))).payload).toEqual(u32(0, 0, 0, 4, 0x11223344));
    const map = await client.ask(message(COMMANDS.DMA_MAP, Buffer.alloc(32, 3)));
    expect(map).toMatchObject({ error: undefined, payload: Buffer.alloc(0) });
    const unmap = await client.ask(message(COMMANDS.DMA_UNMAP, Buffer.alloc(24, 3)));
    expect(unmap).toMatchObject({ error: undefined, payload: Buffer.alloc(24, 3) });
    const off = await client.ask(message(COMMANDS.DEVICE_SET_IRQS, u32(20, 0x21, 0, 0, 0)));
    expect(off).toMatchObject({ error: undefined });
    expect(problems).toEqual([]);
    expect(device.accesses).toHaveLength(4);
  });

  test('sends no reply where none is wanted, and does what it was told', async () => {
    await using _server = await serve();
    await using client = await Client.agreed();
    client.socket.write(writeAt(0x100, u32(7), 0, { id: 5, flags: 0x10 }));
    client.socket.write(message(99, undefined, { id: 6, flags: 0x10 }));
    expect(await client.ask(readAt(0x100, 4, 0, { id: 7 }))).toMatchObject({
      id: 7,
      payload: u32(0x100, 0, 0, 4, 7),
    });
    expect(problems).toHaveLength(1);
  });

  test.each<[string, Buffer, number, string]>([
    ['a command that is not known', message(99, Buffer.from('x')), EOPNOTSUPP, 'command 99'],
    ['a second version', version(), EINVAL, 'VERSION: it is agreed on already'],
    ['a read that is cut short', message(9, u32(0, 0, 0)), EINVAL, '12 bytes follow the header'],
    ['a read with data', message(9, u32(0, 0, 0, 4, 4)), EINVAL, '20 bytes follow the header'],
    ['a read of nothing', readAt(0, 0), EINVAL, '0 bytes at 0x0 of region 0'],
    ['a read over the end', readAt(MAX_TRANSFER_BYTES - 2, 4), EINVAL, '4 bytes at 0xffffe'],
    ['a read far away', message(9, u32(0, 0xffffffff, 0, 4)), EINVAL, 'of region 0, which has'],
    ['a read that is too long', readAt(0, 0xffffffff), EINVAL, '4294967295 bytes at'],
    ['a read of no region', readAt(0, 4, 3), EINVAL, 'region 3, which has 0 bytes'],
    ['a read of an absurd region', readAt(0, 4, 0xffffffff), EINVAL, 'region 4294967295'],
    ['a write of less than it says', message(10, u32(0, 0, 0, 8, 1)), EINVAL, 'not 24'],
    ['a write without a place', message(10), EINVAL, 'REGION_WRITE: 0 bytes follow'],
    ['a write that the device fails', writeAt(8, u32(1)), EIO, 'the device failed in a write'],
    ['a reset with data', message(13, u32(1)), EINVAL, 'DEVICE_RESET: 4 bytes'],
    ['a short DMA map', message(2, u32(1)), EINVAL, 'DMA_MAP: 4 bytes'],
    ['a short DMA unmap', message(3), EINVAL, 'DMA_UNMAP: 0 bytes'],
    ['no room for the reply', message(4, u32(8, 0, 0, 0)), EINVAL, 'room for 8 of 16 bytes'],
    ['a region that is none', message(5, u32(32, 0, 9, 0, 0, 0, 0, 0)), EINVAL, 'no region 9'],
    ['an interrupt that is none', message(7, u32(16, 0, 5, 0)), EINVAL, 'no interrupt type 5'],
    ['an interrupt to be set', message(8, u32(20, 0x24, 0, 0, 1)), EINVAL, 'has no interrupts'],
  ])('answers %s with an error, and goes on', async (_what, bytes, errno, words) => {
    await using _server = await serve();
    await using client = await Client.agreed();
    expect(await client.ask(bytes)).toMatchObject({ error: errno, payload: Buffer.alloc(0) });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({
      name: 'MmioError',
      code: 'protocol',
      message: expect.stringContaining(words),
    });
    expect(await client.ask(readAt(0, 4))).toMatchObject({ error: undefined });
  });

  test.each<[string, Buffer, string]>([
    ['another version', version(1), 'the client speaks 1.0, this server 0.x'],
    ['no JSON', version(0, 'no\0'), 'not a JSON object'],
    ['JSON that is no object', version(0, '[]\0'), 'not a JSON object'],
    ['JSON without its end', version(0, '{}'), 'ends with a zero byte'],
    ['half a version', message(1, u32().subarray(0, 0)), '0 bytes of 4'],
    ['no version', readAt(0, 4), 'command 9 came before it'],
  ])('ends a connection that begins with %s', async (_what, bytes, words) => {
    const device = demoDevice();
    await using _server = await serve(device);
    await using client = await Client.connect();
    // What comes with it is not looked at.
    expect(await client.ask(Buffer.concat([bytes, readAt(0, 4)]))).toMatchObject({ error: EINVAL });
    await client.closed;
    expect(client.replies).toHaveLength(1);
    expect(problems.map(({ message: said }) => said)).toEqual([expect.stringContaining(words)]);
    expect(device.accesses).toEqual([]);
    // The next one is served.
    await using next = await Client.agreed();
    expect(await next.ask(readAt(0, 4))).toMatchObject({ error: undefined });
  });

  test('ends a connection whose stream makes no sense', async () => {
    await using _server = await serve();
    await using client = await Client.agreed();
    client.socket.write(message(9, u32(0, 0, 0, 4), { size: 3 }));
    await client.closed;
    expect(problems.map(({ message: said }) => said)).toEqual([
      'vfio-user: a message cannot be 3 bytes long',
    ]);
  });

  test('tells of a client that leaves in the middle of a message', async () => {
    await using _server = await serve();
    await using client = await Client.agreed();
    client.socket.end(readAt(0, 4).subarray(0, 20));
    await client.closed;
    expect(problems).toMatchObject([
      {
        message: 'vfio-user: the client left in the middle of a message',
        evidence: '20 bytes of it had come',
      },
    ]);
  });

  test('says nothing of a client that just leaves', async () => {
    const device = demoDevice();
    await using _server = await serve(device);
    {
      await using client = await Client.agreed();
      await client.ask(writeAt(0x20, u32(9)));
    }
    await using next = await Client.agreed();
    // The device is as it was left.
    expect((await next.ask(readAt(0x20, 4))).payload).toEqual(u32(0x20, 0, 0, 4, 9));
    expect(problems).toEqual([]);
  });

  test('serves the next one however soon it comes', async () => {
    await using _server = await serve();
    for (let turn = 0; turn < 50; turn++) {
      const client = await Client.agreed();
      client.socket.destroy();
      await using next = await Client.agreed();
      expect(await next.ask(readAt(0, 4))).toMatchObject({ error: undefined });
    }
    expect(problems).toEqual([]);
  });

  test('is free again when a client that it has ended keeps its half open', async () => {
    await using _server = await serve();
    const half = createConnection({ path, allowHalfOpen: true });
    try {
      half.write(version(1));
      await new Promise((resolve) => half.resume().once('end', resolve));
      await using next = await Client.agreed();
      expect(await next.ask(readAt(0, 4))).toMatchObject({ error: undefined });
    } finally {
      half.destroy();
    }
  });

  test('serves one client at a time', async () => {
    await using _server = await serve();
    await using client = await Client.agreed();
    await using second = await Client.connect();
    await second.closed;
    expect(problems).toMatchObject([{ code: 'refused', evidence: path }]);
    expect(await client.ask(readAt(0, 4))).toMatchObject({ error: undefined });
  });

  test('takes messages byte by byte', async () => {
    await using _server = await serve();
    await using client = await Client.agreed();
    const bytes = Buffer.concat([writeAt(0x40, u32(5)), readAt(0x40, 4)]);
    for (let at = 0; at < bytes.length; at++) {
      client.socket.write(bytes.subarray(at, at + 1));
      await delay(0);
    }
    await until('three replies', () => client.replies.length === 3);
    expect(client.replies[2]?.payload).toEqual(u32(0x40, 0, 0, 4, 5));
  });

  test('does not read on from a client that does not take its replies', async () => {
    const device = demoDevice();
    await using _server = await serve(device);
    await using client = await Client.agreed();
    client.socket.pause();
    const wanted = 30;
    for (let n = 0; n < wanted; n++) client.socket.write(readAt(0, MAX_TRANSFER_BYTES));
    await until('an access', () => device.accesses.length > 0);
    await delay(200);
    expect(device.accesses.length).toBeLessThan(5);
    client.socket.resume();
    await until('a reply to each', () => client.replies.length === wanted + 1);
    expect(problems).toEqual([]);
  });

  test('can be closed beside a client that does not take its replies', async () => {
    {
      await using _server = await serve();
      const client = await Client.agreed();
      client.socket.pause();
      for (let n = 0; n < 20; n++) client.socket.write(readAt(0, MAX_TRANSFER_BYTES));
      await delay(50);
    }
    expect(() => statSync(path)).toThrow('ENOENT');
  });
});
