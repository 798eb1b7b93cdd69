import { request as httpRequest } from 'node:http';
import { statSync, truncateSync, writeFileSync, appendFileSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { newToken } from '../../../src/server/access-control.ts';
import type { RecorderLink } from '../../../src/server/capture-feed.ts';
import { Recordings } from '../../../src/server/recordings.ts';
import { servePage, SUBPROTOCOL, type PageServer } from '../../../src/server/serve.ts';
import { v1 } from '../../../src/wire/generated/mmiobridge.ts';
import type { mmiobridge } from '../../../src/wire/generated/types.ts';
import { writeBigCapture } from '../../support/big-capture.ts';
import { Workplace } from '../../support/cli.ts';
import { SOON } from '../../support/soon.ts';

type Reply = mmiobridge.v1.ServerMessage.$Properties;
type Request = mmiobridge.v1.PageMessage.$Properties;

/** As page-client.ts has it. */
const UNREAD_BYTES = 512 << 10;

const NOBODY: RecorderLink = { status: async () => undefined, mark: async () => undefined };

interface Served extends AsyncDisposable {
  readonly server: PageServer;
  readonly recordings: Recordings;
  readonly token: string;
  readonly place: Workplace;
  readonly path: string;
  readonly log: string[];
}

async function serve(rows: number, link = NOBODY, ended = true): Promise<Served> {
  const place = new Workplace();
  const path = place.path('a.mmiocap');
  await writeBigCapture(path, { rows, ended });
  const log: string[] = [];
  const token = newToken();
  const note = (line: string): void => void log.push(line);
  const recordings = new Recordings(note);
  recordings.put({ id: '1', path, name: 'nic0', state: 'recording', link });
  const server = await servePage({ recordings, port: 0, token, log: note });
  return {
    server,
    recordings,
    token,
    place,
    path,
    log,
    async [Symbol.asyncDispose]() {
      await server.close();
      await place[Symbol.asyncDispose]();
    },
  };
}

/** A page that is no browser. */
class Peer implements Disposable {
  readonly socket: WebSocket;
  readonly pushed: Reply[] = [];
  readonly #answers = new Map<number, (reply: Reply) => void>();
  #id = 0;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', (data: Buffer) => {
      const message = v1.ServerMessage.decode(data);
      if (message.id) this.#answers.get(message.id)?.(message);
      else this.pushed.push(message);
    });
  }

  static async open({ server, token }: Served, id = '1'): Promise<Peer> {
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/ws?recording=${id}`, [
      SUBPROTOCOL,
      `token.${token}`,
    ]);
    const peer = new Peer(socket);
    await new Promise((resolve, reject) => {
      socket.once('open', resolve).once('error', reject);
    });
    return peer;
  }

  /** `onAnswer` is called before anything is seen that came behind the answer. */
  ask(request: Request, onAnswer = () => {}): Promise<Reply> {
    const id = ++this.#id;
    return new Promise((resolve) => {
      this.#answers.set(id, (reply) => {
        onAnswer();
        resolve(reply);
      });
      this.socket.send(v1.PageMessage.encode({ ...request, id }).finish());
    });
  }

  /** Watches, and waits until all was looked at. */
  async select(filter: string): Promise<mmiobridge.v1.Selection.$Properties> {
    // What is selected may come in one piece with the answer.
    const forget = () => void (this.pushed.length = 0);
    const reply = await this.ask({ watch: { slot: 0, filter } }, forget);
    if (reply.failure) throw new Error(reply.failure.message ?? '');
    return this.until((message) =>
      message.selection?.caughtUp === true ? message.selection : undefined,
    );
  }

  async until<T>(found: (message: Reply) => T | undefined): Promise<T> {
    for (;;) {
      for (const message of this.pushed) {
        const value = found(message);
        if (value !== undefined) return value;
      }
      await delay(10);
    }
  }

  [Symbol.dispose](): void {
    this.socket.terminate();
  }
}

interface Handshake {
  /** Of the WebSocket protocol; 13 is the only one there is. */
  readonly version?: string;
  readonly host?: string;
  readonly origin?: string;
  readonly protocol?: string;
}

/** The status that a handshake is answered with; 101 is a connection. */
function handshake(
  { server }: Served,
  { version = '13', host, origin, protocol }: Handshake,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      port: server.port,
      host: '127.0.0.1',
      path: '/ws?recording=1',
      headers: {
        Host: host ?? `127.0.0.1:${server.port}`,
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': version,
        'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
        ...(origin !== undefined && { Origin: origin }),
        ...(protocol !== undefined && { 'Sec-WebSocket-Protocol': protocol }),
      },
    });
    request.on('response', ({ statusCode }) => resolve(statusCode ?? 0));
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response.statusCode ?? 0);
    });
    request.on('error', reject);
    request.end();
  });
}

function get(
  { server }: Served,
  path: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ port: server.port, host: '127.0.0.1', path, headers });
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      );
    });
    request.on('error', reject);
    request.end();
  });
}

describe('who may see a recording', () => {
  test('needs the token, a host name of this machine, and a page of ours', async () => {
    await using served = await serve(10);
    const { token, server, log } = served;
    const own = `127.0.0.1:${server.port}`;
    const protocol = `${SUBPROTOCOL}, token.${token}`;
    expect(await handshake(served, { protocol })).toBe(101);
    expect(await handshake(served, { protocol, origin: `http://${own}` })).toBe(101);
    // A tunnel's port.
    const tunnel = { host: 'localhost:9000', origin: 'http://localhost:9000', protocol };
    expect(await handshake(served, tunnel)).toBe(101);

    expect(await handshake(served, {})).toBe(401);
    expect(await handshake(served, { protocol: `${SUBPROTOCOL}, token.${'0'.repeat(32)}` })).toBe(
      401,
    );
    expect(await handshake(served, { protocol, origin: 'http://evil.example' })).toBe(403);
    expect(await handshake(served, { protocol, origin: 'null' })).toBe(403);
    expect(await handshake(served, { protocol, origin: `https://${own}` })).toBe(403);
    expect(await handshake(served, { protocol, host: `evil.example:${server.port}` })).toBe(403);
    const rebound = { protocol, host: 'evil.example', origin: 'http://evil.example' };
    expect(await handshake(served, rebound)).toBe(403);
    expect(log.filter((line) => line.includes('evil.example'))).not.toEqual([]);
    expect(log.join('\n')).not.toContain(token);
  });

  test('a handshake that is none gives back the recording that it asked for', async () => {
    await using served = await serve(1000);
    const { recordings, token } = served;
    const acquired = vi.spyOn(recordings, 'acquire');
    const released = vi.spyOn(recordings, 'release');
    const protocol = `${SUBPROTOCOL}, token.${token}`;
    expect(await handshake(served, { protocol, version: '7' })).toBe(400);
    expect([acquired.mock.calls, released.mock.calls]).toEqual([[['1']], [['1']]]);
  });

  test('downloads need it in a header, and files of the page are all that is open', async () => {
    await using served = await serve(10);
    const { token } = served;
    const authorization = { Authorization: `Bearer ${token}` };
    expect((await get(served, '/download?recording=1&format=mmiotrace')).status).toBe(401);
    expect(
      (await get(served, `/download?recording=1&format=mmiotrace&token=${token}`)).status,
    ).toBe(401);
    const whole = await get(served, '/download?recording=1&format=mmiotrace', authorization);
    expect(whole.status).toBe(200);
    expect(whole.body.toString()).toMatch(/^VERSION 20070824\n/);
    expect((await get(served, '/download?recording=1&format=exe', authorization)).status).toBe(400);
    expect((await get(served, '/', { Host: 'evil.example' })).status).toBe(403);
    for (const path of [
      '/../package.json',
      '/..%2fpackage.json',
      '/assets/../../cli/main.js',
      '/ws',
      '/recordings/1',
    ]) {
      expect((await get(served, path)).status, path).toBe(404);
    }
    const page = await get(served, '/');
    expect(page.status).toBe(200);
    const policy = String(page.headers['content-security-policy']);
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain('unsafe');
  });

  test('the list of recordings needs it, too, and none but those is served', async () => {
    await using served = await serve(10);
    const { token, recordings, path } = served;
    recordings.put({ id: '2', path: '/nowhere', name: 'gone', state: 'waiting', link: NOBODY });
    expect((await get(served, '/recordings')).status).toBe(401);
    const authorization = { Authorization: `Bearer ${token}` };
    const listed = await get(served, '/recordings', authorization);
    expect(JSON.parse(listed.body.toString())).toMatchObject([
      { id: '1', file: 'a.mmiocap', name: 'nic0', state: 'recording', bytes: statSync(path).size },
      { id: '2', file: 'nowhere', name: 'gone', state: 'waiting', bytes: 0 },
    ]);
    for (const id of ['', '3', '../a', '__proto__']) {
      await expect(Peer.open(served, id), id).rejects.toThrow('404');
      const query = `/download?format=mmiotrace&recording=${encodeURIComponent(id)}`;
      expect((await get(served, query, authorization)).status, id).toBe(404);
    }
    await expect(Peer.open(served, '2')).rejects.toThrow('404');
    expect(served.log.join('\n')).toContain('cannot read /nowhere');
  });

  test('one that talks rubbish is let go, and the others never notice', async () => {
    await using served = await serve(1000);
    using good = await Peer.open(served);
    await good.select('');
    for (const rubbish of [Buffer.from([0xff, 0xff, 0xff]), 'text', Buffer.alloc(100_000)]) {
      using bad = await Peer.open(served);
      const closed = new Promise((resolve) => {
        bad.socket.once('close', resolve);
      });
      bad.socket.on('error', () => undefined);
      bad.socket.send(rubbish);
      await closed;
    }
    const { rows } = await good.ask({ rows: { slot: 0, first: 0, count: 10 } });
    expect(rows?.frames).toHaveLength(1);
    expect(served.log.filter((line) => line.startsWith('let a page go'))).not.toEqual([]);
  });
});

describe('what a page is told', () => {
  // Ten turns of big-capture.ts; the other register of the seventh is 0xc0, too.
  test.each([
    ['', 1040],
    ['write', 20],
    ['read', 1020],
    ['bar0+0xc0', 1022],
    ['bar=0 offset=0xc0..0xc3', 1022],
    ['offset=0xc0+4 write', 11],
    ['value&0x8=0x8 read bar0+0xc0', 10],
    ['not bar0+0xc0', 18],
    ['cpu=3 or cpu=1', 520],
    ['time<104us', 104],
    ['time>=0.000104 time<208us', 104],
    ['device=nic0 width=4 mmio', 1040],
    ['device=0000:01:00.0', 1040],
    ['device="no such"', 0],
    ['region=BAR1', 0],
    ['value>=0x80000000 value!=0x80000003 bar0+0xc0', 12],
    ['(write or value=0x8000000b) bar0+0xc0', 21],
    ['pc!=0', 0],
  ])('the filter “%s” lets %i of 1040 accesses pass', async (filter, expected) => {
    await using served = await serve(1040);
    using peer = await Peer.open(served);
    expect((await peer.select(filter)).rows).toBe(expected);
  });

  test.each([
    ['write ofset=1', 6, 'nothing is called “ofset”'],
    ['value&', 6, 'a mask should stand where the end is'],
    ['(read', 5, 'a parenthesis is not closed'],
    ['read)', 4, '“)” has no beginning'],
    ['offset=zz', 7, '“zz” is no number'],
    ['value=0x10000000000000000', 6, 'a number of more than 64 bits'],
    ['device<3', 6, 'device has no order'],
    ['"odd', 0, 'a quotation mark without its other half'],
    ['offset&1', 6, 'only a value has bits'],
  ])('the filter “%s” is refused at %i: %s', async (filter, at, message) => {
    await using served = await serve(1);
    using peer = await Peer.open(served);
    const { failure } = await peer.ask({ watch: { slot: 0, filter } });
    expect(failure).toMatchObject({ at, message });
  });

  test('grows with the file, and begins anew when the file does', async () => {
    await using served = await serve(5000, NOBODY, false);
    const whole = readFileSync(served.path);
    using peer = await Peer.open(served);
    expect((await peer.select('write')).rows).toBe(96);
    await writeBigCapture(served.place.path('longer'), { rows: 50_000, ended: true });
    const longer = readFileSync(served.place.path('longer'));
    // Not the same frames, but they follow a whole one.
    expect(longer.subarray(0, 4096).equals(whole.subarray(0, 4096))).toBe(true);
    peer.pushed.length = 0;
    writeFileSync(served.path, '');
    appendFileSync(served.path, longer.subarray(0, 300_000));
    await peer.until(({ reset }) => (reset ? true : undefined));
    const half = (await peer.select('write')).rows ?? 0;
    expect(half).toBeGreaterThan(96);
    appendFileSync(served.path, longer.subarray(300_000));
    await peer.until(({ selection }) => (selection?.rows === 960 ? true : undefined));
    const ended = await peer.until(({ summary }) =>
      summary?.state === v1.Summary.State.STATE_ENDED ? summary : undefined,
    );
    expect((ended.reads ?? 0) + (ended.writes ?? 0)).toBe(50_000);
  });

  test('a file that is cut is another one', async () => {
    await using served = await serve(20_000, NOBODY, false);
    using peer = await Peer.open(served);
    await peer.select('');
    truncateSync(served.path, 100_000);
    await peer.until(({ reset }) => (reset ? true : undefined));
    const { rows = 0 } = await peer.select('');
    expect(rows).toBeGreaterThan(0);
    expect(rows).toBeLessThan(20_000);
  });

  test('a page that does not read misses what is new, is told how much, and holds up nobody', async () => {
    await using served = await serve(200_000, NOBODY, false);
    using slow = await Peer.open(served);
    await slow.select('');
    slow.socket.pause();
    const sent = vi.spyOn(WebSocket.prototype, 'send');
    // Answers that nobody takes fill what the system holds for it, and then ours.
    for (let at = 0; at < 250; at++) {
      const request = { id: 1000 + at, rows: { slot: 0, first: at * 500, count: 1024 } };
      slow.socket.send(v1.PageMessage.encode(request).finish());
    }
    const others = await Promise.all(Array.from({ length: 50 }, () => Peer.open(served)));
    const growth = served.place.path('growth');
    await writeBigCapture(growth, { rows: 300_000, ended: false });
    const [first] = others;
    if (first === undefined) throw new Error('nobody');
    await Promise.all(others.map((peer) => peer.select('')));
    await first.until(({ selection }) => (selection?.rows === 200_000 ? true : undefined));
    const unread = () =>
      Math.max(...(sent.mock.contexts as WebSocket[]).map(({ bufferedAmount }) => bufferedAmount));
    await vi.waitFor(() => expect(unread()).toBeGreaterThan(UNREAD_BYTES), SOON);
    sent.mockRestore();
    appendFileSync(served.path, batchesOf(growth, served.path));
    // Whoever is told of it, the one that does not read had its turn in the same round.
    await first.until(({ selection }) => ((selection?.rows ?? 0) > 200_000 ? true : undefined));
    slow.socket.resume();
    const behind = await slow.until(({ behind: told }) => told ?? undefined);
    expect(behind.updates).toBeGreaterThan(0);
    expect(behind.accesses).toBeGreaterThan(0);
    for (const peer of others) peer[Symbol.dispose]();
  });

  test('a mark goes to the recorder; without one it is refused', async () => {
    const marked: string[] = [];
    const link: RecorderLink = {
      status: async () => undefined,
      mark: async (text) => void marked.push(text),
    };
    await using served = await serve(1, link, false);
    using peer = await Peer.open(served);
    expect((await peer.ask({ addMark: { text: ' plugged in ' } })).done).toBeTruthy();
    expect(marked).toEqual(['plugged in']);
    expect((await peer.ask({ addMark: { text: '' } })).failure?.message).toContain('a mark has');
  });
});

/** Frames of the one capture that lie behind the length of the other. */
function batchesOf(from: string, behind: string): Buffer {
  const bytes = readFileSync(from);
  const length = readFileSync(behind).length;
  for (let at = 12; at < bytes.length; at += 8 + bytes.readUInt32LE(at)) {
    if (at >= length) return bytes.subarray(at);
  }
  throw new Error('it is not longer');
}
