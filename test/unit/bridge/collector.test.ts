/**
 * A collector and its peers over real sockets: what friends send is written once, whatever is cut;
 * what others send is refused with a reason, and the friends do not notice.
 */
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseBridgeAddress } from '../../../src/bridge/address.ts';
import { Collector, type CollectorOptions } from '../../../src/bridge/collector.ts';
import { openSender, type BridgeSender } from '../../../src/bridge/sender.ts';
import type { StreamItem } from '../../../src/model/stream.ts';
import { CaptureSink } from '../../../src/sinks/capture.ts';
import {
  BRIDGE_VERSION,
  decodeBridgeMessage,
  encodeBridgeMessage,
  type BridgeMessage,
  type Hello,
} from '../../../src/wire/bridge-messages.ts';
import { FILE_HEADER_BYTES, FRAME_HEADER_BYTES, sealFrame } from '../../../src/wire/frame.ts';
import { FrameSplitter } from '../../../src/wire/frame-splitter.ts';
import { encodeEvent } from '../../../src/wire/messages.ts';
import { badWire } from '../../support/bridge.ts';
import { HEADER, captureOf } from '../../support/captures.ts';
import { SAMPLE_ITEMS } from '../../support/sample-session.ts';
import { SOON } from '../../support/soon.ts';

// As it is, and once, where a test says so, as slow as a busy disk.
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return { ...real, rm: vi.fn<typeof rm>(real.rm) };
});

/** A mark, sound in itself. */
const FRAME = framed(encodeEvent({ kind: 'mark', timeNs: 0, text: 'x' }));
const TOKEN = 'the token of these tests';
const ID = 'a'.repeat(32);

let dir: string;
let port: number;
let said: string[];
let collector: Collector;
const open: { close(): unknown }[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-collector-'));
  vi.stubEnv('MMIOBRIDGE_TOKEN', TOKEN);
  vi.stubEnv('MMIOBRIDGE_RUN', join(dir, 'run'));
  mkdirSync(join(dir, 'out'));
  said = [];
  port = await freePort();
  collector = await start();
});
afterEach(async () => {
  for (const each of open.splice(0)) each.close();
  await collector.close();
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true });
});

function start(more: Partial<CollectorOptions> = {}): Promise<Collector> {
  return Collector.open({
    addresses: [parseBridgeAddress(`tcp://127.0.0.1:${port}`)],
    token: TOKEN,
    certificate: undefined,
    insecurePlaintext: false,
    patterns: [join(dir, 'out', '{device}.mmiocap')],
    format: undefined,
    textExtra: undefined,
    stateDir: join(dir, 'state'),
    maxSessions: 4,
    notice: (line) => void said.push(line),
    onRecording: () => undefined,
    ...more,
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

interface Friend {
  readonly sender: BridgeSender;
  readonly sink: CaptureSink;
  readonly notices: string[];
}

async function friend(
  name: string,
  { recording = ID, resumeAt = undefined as number | undefined, through = port } = {},
): Promise<Friend> {
  const notices: string[] = [];
  const target = {
    address: `tcp://127.0.0.1:${through}`,
    tokenFile: undefined,
    caFile: undefined,
    insecurePlaintext: false,
    recording,
  };
  const session = {
    id: 's',
    devices: [name],
    resumeAt,
    notice: (line: string) => notices.push(line),
  };
  const sender = await openSender(target, {
    ...session,
    notice: (line) => void session.notice(line),
  });
  open.push({ close: () => sender.drop() });
  const sink = new CaptureSink(sender);
  if (resumeAt === undefined) await sink.begin(HEADER);
  return { sender, sink, notices };
}

async function write(sink: CaptureSink, items: readonly StreamItem[]): Promise<void> {
  for (const item of items) await sink.write(item);
}

/** A friend whose first eight items are safe, and where in its capture they end. */
async function halfSent(name: string, recording = ID): Promise<Friend & { captureOffset: number }> {
  const sending = await friend(name, { recording });
  await write(sending.sink, SAMPLE_ITEMS.slice(0, 8));
  const captureOffset = await sending.sink.flush();
  await sending.sender.sync();
  return { ...sending, captureOffset };
}

const written = (name: string) => readFileSync(join(dir, 'out', name));

/** A peer that says what it likes, and what it is told. */
class Peer {
  readonly socket: Socket;
  readonly told: BridgeMessage[] = [];
  readonly gone: Promise<void>;

  constructor() {
    this.socket = connect(port, '127.0.0.1');
    const splitter = new FrameSplitter(1 << 20);
    this.socket.on('data', (chunk) => {
      for (const payload of splitter.feed(chunk)) this.told.push(decodeBridgeMessage(payload));
    });
    this.socket.on('error', () => undefined);
    this.gone = new Promise((resolve) => this.socket.once('close', () => resolve()));
    open.push({ close: () => this.socket.destroy() });
  }

  send(...messages: readonly (BridgeMessage | Uint8Array)[]): this {
    for (const message of messages) {
      this.socket.write(message instanceof Uint8Array ? message : encodeBridgeMessage(message));
    }
    return this;
  }

  async refusal(): Promise<string | undefined> {
    await this.gone;
    const last = this.told.find((message) => message.kind === 'refusal');
    return last?.kind === 'refusal' ? last.reason : undefined;
  }

  async welcome(): Promise<void> {
    await vi.waitUntil(() => this.told.some(({ kind }) => kind === 'welcome'), SOON);
  }
}

const hello = (more: Partial<Hello> = {}): Hello => ({
  kind: 'hello',
  version: BRIDGE_VERSION,
  tool: 'test',
  token: TOKEN,
  recording: 'b'.repeat(32),
  sender: 'c'.repeat(32),
  captureOffset: FILE_HEADER_BYTES,
  host: 'lab',
  session: 's',
  devices: ['bad'],
  ...more,
});

describe('a recording', () => {
  test('is on the disk when sync resolves, and whole when close does', async () => {
    const { sender, sink } = await friend('gpu');
    await write(sink, SAMPLE_ITEMS.slice(0, 6));
    const length = await sink.flush();
    await sender.sync();
    expect(written('gpu.mmiocap')).toHaveLength(length);
    await write(sink, SAMPLE_ITEMS.slice(6));
    await sink.end();
    expect(written('gpu.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
    expect(said.at(-1)).toMatch(/ gpu: finished: \d+ accesses in .*gpu\.mmiocap$/);
  });

  test('goes on where it was acknowledged when the collector is another, again and again', async () => {
    const { sender, sink, notices } = await friend('gpu');
    for (const item of SAMPLE_ITEMS) {
      await sink.write(item);
      await sink.flush();
      if (SAMPLE_ITEMS.indexOf(item) % 3 === 0) await sender.sync();
      if (SAMPLE_ITEMS.indexOf(item) % 5 === 4) {
        await collector.close();
        collector = await start();
      }
    }
    await sink.end();
    expect(notices.filter((line) => line.endsWith('connected again')).length).toBeGreaterThan(1);
    expect(written('gpu.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
    expect(readdirSync(join(dir, 'out'))).toEqual(['gpu.mmiocap']);
  });

  test.each([1, 2])('goes back to where its recorder goes back to: %i syncs', async (back) => {
    const first = await friend('gpu');
    const places: number[] = [];
    for (const item of SAMPLE_ITEMS.slice(0, 8)) {
      await first.sink.write(item);
      places.push(await first.sink.flush());
      await first.sender.sync();
    }
    // The recorder was killed, and had written down this much.
    first.sender.drop();
    const index = 8 - back;
    const second = await friend('gpu', { resumeAt: places[index] ?? 0 });
    await write(second.sink, SAMPLE_ITEMS.slice(index + 1));
    await second.sink.end();
    expect(written('gpu.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
  });

  test('that is finished can be resumed, by a recorder that did not hear of it', async () => {
    const { captureOffset, ...first } = await halfSent('gpu');
    await write(first.sink, SAMPLE_ITEMS.slice(8));
    await first.sink.end();
    const second = await friend('gpu', { resumeAt: captureOffset });
    await write(second.sink, SAMPLE_ITEMS.slice(8));
    await second.sink.end();
    expect(written('gpu.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
  });

  test('that is resumed while the collector still puts its folder away has one', async () => {
    const { captureOffset, ...first } = await halfSent('gpu');
    await write(first.sink, SAMPLE_ITEMS.slice(8));
    let putAway: () => void = () => undefined;
    const isSlow = new Promise<void>((resolve) => (putAway = resolve));
    const begun = new Promise<void>((resolve) => {
      vi.mocked(rm).mockImplementationOnce(async (path, options) => {
        rmSync(join(String(path), 'collected.json'));
        resolve();
        await isSlow;
        rmSync(path, options);
      });
    });
    await first.sink.end();
    await begun;
    const second = friend('gpu', { resumeAt: captureOffset });
    // As long as one takes that does not wait; one that waits would wait for ever.
    await Promise.race([second, sleep(500)]);
    putAway();
    const { sink } = await second;
    const folder = () => readdirSync(join(dir, 'run', 's@vm')).toSorted();
    await vi.waitFor(() => expect(folder()).toEqual(['collected.json', 'control.sock']), SOON);
    await write(sink, SAMPLE_ITEMS.slice(8));
    await sink.end();
    expect(written('gpu.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
  });

  test('that nobody waits with any more is known when its sender comes back', async () => {
    const idOf = (number: number) => number.toString(16).padStart(2, '0').repeat(16);
    let captureOffset = 0;
    // One more than wait.
    for (let number = 0; number <= 64; number++) {
      const { sender, ...sent } = await halfSent(`gpu${number}`, idOf(number));
      captureOffset = sent.captureOffset;
      sender.drop();
      const lost = ` gpu${number}: connection lost`;
      await vi.waitFor(() => expect(said.join('\n')).toContain(lost), SOON);
    }
    await vi.waitFor(() => expect(readdirSync(join(dir, 'run'))).toHaveLength(64), SOON);
    const { sink } = await friend('gpu0', { recording: idOf(0), resumeAt: captureOffset });
    await write(sink, SAMPLE_ITEMS.slice(8));
    await sink.end();
    expect(written('gpu0.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
  });

  test('comes over a wire that breaks every now and then, anywhere', async () => {
    const wire = await badWire(port, 400_001, 1);
    open.push(wire);
    const { sink, sender } = await friend('gpu', { through: wire.port });
    const items = Array.from({ length: 60 }, (_, index): StreamItem => {
      const text = String.fromCharCode(97 + (index % 26)).repeat(50_000 + index);
      return { kind: 'mark', timeNs: index, text };
    });
    for (const [index, item] of items.entries()) {
      await sink.write(item);
      if (index % 7 === 6) await sink.flush().then(() => sender.sync());
    }
    await sink.end();
    expect(wire.cuts()).toBeGreaterThan(5);
    expect(written('gpu.mmiocap').equals(await captureOf(items))).toBe(true);
  });

  test('of which the collector knows nothing is not begun in the middle', async () => {
    await expect(friend('gpu', { resumeAt: 1000 })).rejects.toMatchObject({
      code: 'refused',
      evidence: expect.stringContaining('nothing is known of what was sent before') as string,
    });
    expect(readdirSync(join(dir, 'out'))).toEqual([]);
  });
});

describe('the state', () => {
  test('is kept by one collector at a time', async () => {
    const other = { addresses: [parseBridgeAddress(`unix:${join(dir, 'socket')}`)] };
    await expect(start(other)).rejects.toMatchObject({
      code: 'usage',
      message: 'another collector keeps its state there',
      evidence: `${join(dir, 'state')}: process ${process.pid} runs`,
    });
    await collector.close();
    await (await start(other)).close();
  });

  test.each([
    ['a collector that is gone', JSON.stringify({ pid: process.pid, startTime: 1 })],
    ['one that was killed while it wrote', '{"pi'],
  ])('is taken over from %s', async (_, left) => {
    await collector.close();
    writeFileSync(join(dir, 'state', 'lock'), left);
    collector = await start();
    expect(readFileSync(join(dir, 'state', 'lock'), 'utf8')).toContain(`"pid":${process.pid}`);
  });
});

test.each([
  ['half of it', (text: string) => text.slice(0, text.length / 2), 'is not whole'],
  ['another version', (text: string) => text.replace('"version":1', '"version":9'), 'version 9'],
  ['without points', (text: string) => text.replace(/"points":\[.*\],/, '"points":[],'), 'points'],
])('state that is damaged (%s) is refused with the file and the reason', async (_, spoil, why) => {
  const { sender, sink } = await friend('gpu');
  await write(sink, SAMPLE_ITEMS.slice(0, 6));
  const resumeAt = await sink.flush();
  await sender.sync();
  sender.drop();
  await vi.waitFor(() => expect(said.join()).toContain('gpu: connection lost'), SOON);
  const [name = ''] = readdirSync(join(dir, 'state')).filter((file) => file.endsWith('.json'));
  const path = join(dir, 'state', name);
  const text = readFileSync(path, 'utf8');
  expect(spoil(text)).not.toBe(text);
  writeFileSync(path, spoil(text));
  const again = friend('gpu', { resumeAt });
  await expect(again).rejects.toMatchObject({ code: 'refused' });
  await expect(again).rejects.toMatchObject({
    evidence: expect.stringContaining(why) as string,
  });
  // Nothing of what was collected is gone.
  expect(readFileSync(path, 'utf8')).toBe(spoil(text));
});

describe('a stranger', () => {
  test.each([
    ['without a token', hello({ token: '' }), 'it has no token'],
    ['with a wrong token', hello({ token: `${TOKEN}.` }), 'its token is wrong'],
    [
      'of another version',
      hello({ version: 7 }),
      `it speaks version 7 of the bridge; mmiobridge 0.1.0 here speaks ${BRIDGE_VERSION}`,
    ],
    ['with ids that are paths', hello({ recording: '../../etc/passwd' }), 'no proper ids'],
    ['that does not say hello', { kind: 'heartbeat' } as const, 'it began with heartbeat'],
    ['that sends a frame first', FRAME, 'it began with a frame in place of a hello'],
    ['that speaks HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: desk\r\n\r\n'), 'a frame cannot be'],
    ['with a huge length', Buffer.from('ffffffff00000000', 'hex'), 'a frame cannot be 4294967295'],
    ['with a long hello', hello({ host: 'x'.repeat(20_000) }), 'a frame cannot be 20'],
  ])('%s is refused, and the log says why', async (_, first, reason) => {
    const peer = new Peer().send(first);
    expect(await peer.refusal()).toContain(reason);
    await vi.waitFor(
      () => expect(said.join('\n')).toMatch(/^127\.0\.0\.1:\d+: (refused|dropped): /m),
      SOON,
    );
    expect(said.join('\n')).toContain(reason);
    expect(said.join('\n')).not.toContain(TOKEN);
    expect(readdirSync(join(dir, 'out'))).toEqual([]);
  });

  test('who says hello one byte at a time is dropped in the end', async () => {
    const peer = new Peer();
    const bytes = encodeBridgeMessage(hello());
    let at = 0;
    const drip = setInterval(() => peer.send(bytes.subarray(at, ++at)), 100);
    await peer.gone;
    clearInterval(drip);
    expect(said.join('\n')).toContain('it has not said hello within 5 s');
  });

  test('is one of 200, and a friend gets in all the same', async () => {
    const before = await friend('before');
    const crowd = Array.from({ length: 200 }, () => new Peer());
    const tooMany = () => said.filter((line) => line.includes('too many that do not say hello'));
    await vi.waitFor(() => expect(tooMany()).toHaveLength(200 - 64), SOON);
    const during = await friend('during', { recording: 'd'.repeat(32) });
    for (const { sink } of [before, during]) await write(sink, SAMPLE_ITEMS);
    await Promise.all([before.sink.end(), during.sink.end()]);
    const whole = await captureOf(SAMPLE_ITEMS);
    expect(written('before.mmiocap')).toEqual(whole);
    expect(written('during.mmiocap')).toEqual(whole);
    expect(before.notices).toEqual([]);
    expect(tooMany()).toHaveLength(200 - 64 + 1);
    for (const { socket } of crowd) socket.destroy();
  });
});

describe('a peer with the token', () => {
  const frames = async () => (await captureOf(SAMPLE_ITEMS)).subarray(FILE_HEADER_BYTES);
  const reasons: [string, () => Promise<(BridgeMessage | Uint8Array)[]>, string][] = [
    ['that does not begin with the header', async () => [FRAME], 'does not begin with its header'],
    ['that breaks a frame', async () => [flipped(await frames(), 40)], 'fails its checksum'],
    [
      'that lies about where it is',
      async () => [await frames(), { kind: 'sync', captureOffset: 13, kept: [] }],
      'sync is not for the offset at which it came',
    ],
    [
      'that ends before it is acknowledged',
      async () => {
        const all = await frames();
        return [all, { kind: 'finish', captureOffset: FILE_HEADER_BYTES + all.length }];
      },
      'the end came before all was acknowledged',
    ],
    ['that says hello twice', async () => [hello()], 'a sender does not send hello here'],
    [
      'that acknowledges',
      async () => [{ kind: 'acknowledgement', captureOffset: 1 }],
      'does not send',
    ],
    [
      'that begins twice',
      async () => [await frames(), (await captureOf([])).subarray(FILE_HEADER_BYTES)],
      'a second header',
    ],
  ];
  test.each(reasons)('%s is dropped, and the others do not notice', async (_, make, reason) => {
    const other = await friend('gpu');
    const peer = new Peer().send(hello());
    await peer.welcome();
    await write(other.sink, SAMPLE_ITEMS.slice(0, 5));
    peer.send(...(await make()));
    expect(await peer.refusal()).toContain(reason);
    await write(other.sink, SAMPLE_ITEMS.slice(5));
    await other.sink.end();
    expect(written('gpu.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
    expect(other.notices).toEqual([]);
    await vi.waitFor(() => expect(said.join('\n')).toMatch(/lab bad: connection lost: /), SOON);
  });

  test('that sends more than the window is dropped', async () => {
    const peer = new Peer().send(hello());
    await peer.welcome();
    peer.send(await frames());
    // Frames that are sound, and never a sync.
    const mark = (
      await captureOf([{ kind: 'mark', timeNs: 0, text: 'x'.repeat(60_000) }])
    ).subarray((await captureOf([])).length);
    for (let n = 0; n < 200; n++) peer.send(mark);
    expect(await peer.refusal()).toContain('more was sent than there is a window for');
  });

  test('that ends in half a frame loses that alone, and goes on', async () => {
    const all = await frames();
    const peer = new Peer().send(hello());
    await peer.welcome();
    peer.send(all.subarray(0, -5));
    peer.socket.end();
    await vi.waitFor(() => expect(said.join('\n')).toContain('lab bad: connection lost: '), SOON);
    const again = new Peer().send(hello());
    await again.welcome();
    const captureOffset = FILE_HEADER_BYTES + all.length;
    again.send(all, { kind: 'sync', captureOffset, kept: [] });
    await vi.waitFor(
      () => expect(again.told).toContainEqual({ kind: 'acknowledgement', captureOffset }),
      SOON,
    );
    expect(written('bad.mmiocap')).toEqual(await captureOf(SAMPLE_ITEMS));
  });

  test('is one too many where so many are not allowed', async () => {
    await collector.close();
    collector = await start({ maxSessions: 1 });
    await friend('gpu');
    const peer = new Peer().send(hello());
    expect(await peer.refusal()).toContain('1 recordings are being taken; no more are allowed');
  });
});

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
  return copy;
}

function framed(payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  bytes.set(payload, FRAME_HEADER_BYTES);
  sealFrame(bytes, 0, payload.length);
  return bytes;
}
