import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { QmpClient, type QmpEvent } from '../../../src/qmp/client.ts';
import { isObject } from '../../../src/qmp/protocol.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}\r\n';
const OK = '{"return": {}, "id": 0}\r\n';

interface Request {
  readonly execute: string;
  readonly arguments?: unknown;
  readonly id: number;
}

let directory: string;
let path: string;
let server: Server | undefined;
let peers: Socket[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'qmp-'));
  path = join(directory, 's');
  peers = [];
});

afterEach(async () => {
  for (const peer of peers) peer.destroy();
  const open = server;
  if (open !== undefined) await new Promise((resolve) => open.close(resolve));
  server = undefined;
  await rm(directory, { recursive: true });
});

/** Listens; `onPeer` gets each connection. */
async function listen(onPeer: (peer: Socket) => void): Promise<void> {
  const made = createServer((peer) => {
    peers.push(peer);
    peer.on('error', () => {});
    onPeer(peer);
  });
  server = made;
  await new Promise<void>((resolve) => {
    made.listen(path, resolve);
  });
}

function requestOf(line: string): Request {
  const value: unknown = JSON.parse(line);
  if (!isObject(value)) throw new Error(`not a request: ${line}`);
  const { execute, id } = value;
  if (typeof execute !== 'string' || typeof id !== 'number') throw new Error(`no request: ${line}`);
  return { ...value, execute, id };
}

/** Calls back with each request line of the client. */
function onRequests(peer: Socket, call: (request: Request) => void): void {
  let held = '';
  peer.on('data', (chunk: Buffer) => {
    const lines = (held + chunk.toString()).split('\n');
    held = lines.pop() ?? '';
    for (const line of lines) call(requestOf(line));
  });
}

/** A server that negotiates well, and then does `behave` with each request. */
async function serve(behave: (request: Request, peer: Socket) => void = () => {}): Promise<void> {
  await listen((peer) => {
    peer.write(GREETING);
    onRequests(peer, (request) => {
      if (request.execute === 'qmp_capabilities') peer.write(OK);
      else behave(request, peer);
    });
  });
}

function reply(peer: Socket, id: unknown, value: unknown = {}): void {
  peer.write(`${JSON.stringify({ return: value, id })}\r\n`);
}

function eventLine(name: string, data?: unknown): string {
  const timestamp = { seconds: 1_700_000_000, microseconds: 123_456 };
  return `${JSON.stringify({ event: name, data, timestamp })}\r\n`;
}

/** The error that `promise` rejects with; fails if it resolves. */
async function failure(promise: Promise<unknown>): Promise<MmioError> {
  const outcome = await promise.then(
    () => 'resolved',
    (error: unknown) => error,
  );
  if (outcome instanceof MmioError) return outcome;
  throw new Error(`expected an MmioError, got ${String(outcome)}`);
}

async function settled(milliseconds: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
  });
}

describe('connecting', () => {
  test('negotiates and knows the version', async () => {
    await serve();
    await using client = await QmpClient.connect(path);
    expect(client.version).toBe('7.2.22 (Debian 1:7.2)');
    expect(client.versionNumber).toEqual([7, 2, 22]);
    expect(client.state).toBe('ready');
  });

  test('takes unix:path, and host:port with and without tcp:', async () => {
    await serve();
    const byPath = await QmpClient.connect(`unix:${path}`);
    expect(byPath.state).toBe('ready');
    await byPath.close();
    const tcp = createServer((peer) => {
      peer.on('error', () => {});
      peer.write(GREETING);
      onRequests(peer, () => peer.write(OK));
    });
    await new Promise<void>((resolve) => {
      tcp.listen(0, '127.0.0.1', resolve);
    });
    const address = tcp.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    for (const form of [`127.0.0.1:${address.port}`, `tcp:127.0.0.1:${address.port}`]) {
      await using client = await QmpClient.connect(form);
      expect(client.state).toBe('ready');
    }
    tcp.close();
  });

  test.each([
    '',
    'unix:',
    'tcp:localhost',
    'localhost:0',
    'localhost:65536',
    `/${'x'.repeat(107)}`,
  ])('refuses the address %j', async (address) => {
    expect((await failure(QmpClient.connect(address))).code).toBe('usage');
  });

  test('a socket that is not there', async () => {
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('not-found');
    expect(error.message).toContain(path);
    expect(error.hint).toContain(`-qmp unix:${path}`);
  });

  test('a socket whose QEMU has ended', async () => {
    await listen(() => {});
    await rm(path);
    // A plain file refuses a connection as a dead socket does.
    await writeFile(path, '');
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('refused');
    expect(error.hint).toContain('has ended');
  });

  test('a peer that closes before its greeting', async () => {
    await listen((peer) => peer.end());
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('closed');
    expect(error.message).toContain('before its greeting');
  });

  test('a peer that closes in the middle of its greeting', async () => {
    await listen((peer) => peer.end(GREETING.slice(0, 20)));
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('closed');
    expect(error.evidence).toContain('{"QMP": {"version":');
  });

  test('a peer that closes after its greeting', async () => {
    await listen((peer) => peer.end(GREETING));
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('closed');
    expect(error.message).toMatch(/negotiation|lost/);
  });

  test('a peer that refuses the negotiation', async () => {
    await listen((peer) => {
      peer.write(GREETING);
      onRequests(peer, ({ id }) =>
        peer.write(`{"error":{"class":"GenericError","desc":"not you"},"id":${id}}\n`),
      );
    });
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('refused');
    expect(error.evidence).toBe('GenericError: not you');
  });

  test('a peer that says nothing: another program may hold the socket', async () => {
    await listen(() => {});
    const error = await failure(QmpClient.connect(path, { connectTimeoutMs: 50 }));
    expect(error.code).toBe('timeout');
    expect(error.hint).toContain('another program may hold this socket');
  });

  test('a peer that greets and then says nothing', async () => {
    await listen((peer) => peer.write(GREETING));
    const error = await failure(QmpClient.connect(path, { connectTimeoutMs: 50 }));
    expect(error.code).toBe('timeout');
    expect(error.message).toContain('qmp_capabilities');
  });

  test('a human monitor is told from QMP', async () => {
    await listen((peer) => peer.write("\u0000QEMU 7.2.22 monitor - type 'help'\r\n(qemu) "));
    const error = await failure(QmpClient.connect(path));
    expect(error.code).toBe('protocol');
    expect(error.evidence).toContain('\\x00QEMU 7.2.22 monitor');
    expect(error.hint).toContain('human monitor');
  });

  test('replies before the greeting, and a second greeting, are errors', async () => {
    await listen((peer) => peer.write(OK));
    expect((await failure(QmpClient.connect(path))).code).toBe('protocol');
    await rm(path, { force: true });
    server?.close();
    await listen((peer) => peer.write(GREETING + GREETING));
    expect((await failure(QmpClient.connect(path))).message).toContain('second greeting');
  });

  test('can be given up, before and during', async () => {
    await listen(() => {});
    const reason = new Error('enough');
    const before = QmpClient.connect(path, { signal: AbortSignal.abort(reason) });
    await expect(before).rejects.toBe(reason);
    const controller = new AbortController();
    const during = QmpClient.connect(path, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 20);
    await expect(during).rejects.toBe(reason);
  });
});

describe('commands', () => {
  test('carry an id and their arguments, and resolve to what QEMU returns', async () => {
    const seen: Request[] = [];
    await serve((request, peer) => {
      seen.push(request);
      reply(peer, request.id, { name: 'vm' });
    });
    await using client = await QmpClient.connect(path);
    await expect(client.execute('query-name')).resolves.toEqual({ name: 'vm' });
    await client.execute('qom-get', { path: '/', property: 'type' });
    expect(seen[0]?.execute).toBe('query-name');
    expect(seen[0]?.arguments).toBeUndefined();
    expect(seen[1]?.arguments).toEqual({ path: '/', property: 'type' });
    expect(seen[1]?.id).not.toBe(seen[0]?.id);
  });

  test('are matched to their replies in any order', async () => {
    const waiting: Request[] = [];
    await serve((request, peer) => {
      waiting.push(request);
      if (waiting.length < 3) return;
      for (const { id, execute } of waiting.toReversed()) reply(peer, id, execute);
    });
    await using client = await QmpClient.connect(path);
    const names = ['a', 'b', 'c'];
    await expect(Promise.all(names.map((name) => client.execute(name)))).resolves.toEqual(names);
    expect(client.strayReplies).toBe(0);
  });

  test('QEMU’s refusal comes with its own words, and the stack of the caller', async () => {
    await serve(({ id }, peer) =>
      peer.write(
        `{"id": ${id}, "error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}\r\n`,
      ),
    );
    await using client = await QmpClient.connect(path);
    const error = await failure(client.execute('nope'));
    expect(error.code).toBe('refused');
    expect(error.message).toContain('nope');
    expect(error.evidence).toBe('CommandNotFound: The command nope has not been found');
    expect(error.stack).toContain('unit/qmp/client.test.ts');
    expect(error.stack).toContain(error.message);
  });

  test('a late reply to one that timed out is dropped, and answers no other', async () => {
    const late: number[] = [];
    await serve(({ execute, id }, peer) => {
      if (execute === 'slow') {
        late.push(id);
        return;
      }
      for (const old of late.splice(0)) reply(peer, old, 'late');
      reply(peer, id, 'own');
    });
    await using client = await QmpClient.connect(path);
    const error = await failure(client.execute('slow', undefined, { timeoutMs: 20 }));
    expect(error.code).toBe('timeout');
    expect(error.evidence).toBe('slow');
    await expect(client.execute('next')).resolves.toBe('own');
    expect(client.strayReplies).toBe(0);
  });

  test('the connection’s own time limit holds where a command names none', async () => {
    await serve();
    await using client = await QmpClient.connect(path, { commandTimeoutMs: 20 });
    expect((await failure(client.execute('slow'))).code).toBe('timeout');
  });

  test('replies that nobody asked for are ignored and counted', async () => {
    await serve(({ id }, peer) => {
      reply(peer, 4711);
      reply(peer, 'text');
      peer.write('{"error": {"class": "GenericError", "desc": "no id"}}\r\n');
      reply(peer, id, 'first');
      reply(peer, id, 'again');
    });
    await using client = await QmpClient.connect(path);
    await expect(client.execute('x')).resolves.toBe('first');
    await settled(20);
    expect(client.strayReplies).toBe(4);
    expect(client.state).toBe('ready');
  });

  test('can be given up; the reply is then no stray', async () => {
    await serve(({ execute, id }, peer) => {
      if (execute === 'late') setTimeout(() => reply(peer, id), 30);
      else reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    const reason = new Error('enough');
    await expect(
      client.execute('x', undefined, { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
    const controller = new AbortController();
    const given = client.execute('late', undefined, { signal: controller.signal });
    controller.abort(reason);
    await expect(given).rejects.toBe(reason);
    await settled(60);
    expect(client.strayReplies).toBe(0);
    await client.execute('still there');
  });

  test('arguments that are no JSON are refused, and nothing is sent', async () => {
    await serve(({ id }, peer) => reply(peer, id));
    await using client = await QmpClient.connect(path);
    expect((await failure(client.execute('x', { big: 1n }))).code).toBe('usage');
    await client.execute('y');
  });

  test('hmp returns the monitor’s text with LF', async () => {
    await serve((request, peer) => {
      expect(request.arguments).toEqual({ 'command-line': 'info version' });
      reply(peer, request.id, 'a\r\nb\r\n');
    });
    await using client = await QmpClient.connect(path);
    await expect(client.hmp('info version')).resolves.toBe('a\nb\n');
  });
});

describe('the stream', () => {
  test('may be split anywhere', async () => {
    let split = 0;
    await listen((peer) => {
      peer.write(GREETING);
      onRequests(peer, ({ execute, id }) => {
        if (execute === 'qmp_capabilities') {
          peer.write(OK);
          return;
        }
        const answer = Buffer.from(
          `${eventLine('STOP', { a: 'ä' })}{"return": "ö", "id": ${id}}\r\n`,
        );
        peer.write(answer.subarray(0, split));
        setImmediate(() => peer.write(answer.subarray(split)));
      });
    });
    await using client = await QmpClient.connect(path);
    const seen: unknown[] = [];
    client.onEvent(({ data }) => seen.push(data));
    for (split = 1; split < 120; split++) {
      await expect(client.execute('x')).resolves.toBe('ö');
    }
    expect(seen).toEqual(Array.from({ length: 119 }, () => ({ a: 'ä' })));
  });

  test('may come byte by byte', async () => {
    await serve(({ id }, peer) => {
      const bytes = Buffer.from(`${eventLine('STOP', { a: 'ä' })}{"return": "ö", "id": ${id}}\r\n`);
      let next = 0;
      const step = (): void => {
        if (next >= bytes.length) return;
        peer.write(bytes.subarray(next, ++next));
        setImmediate(step);
      };
      step();
    });
    await using client = await QmpClient.connect(path);
    const stopped = client.event('STOP');
    await expect(client.execute('x')).resolves.toBe('ö');
    expect((await stopped).data).toEqual({ a: 'ä' });
  });

  test.each([
    ['not JSON', 'bogus\u0001', 'bogus\\x01'],
    ['null', 'null', 'null'],
    ['a number', '42', '42'],
    ['an array', '[]', '[]'],
    ['an object that is no message', '{"x": 1}', '{"x": 1}'],
    ['an error without words', '{"error": "x"}', '{"error": "x"}'],
    ['an event without a time', '{"event": "STOP"}', '{"event": "STOP"}'],
    ['a cut line', '{"return": {}, "id', '{"return": {}, "id'],
  ])('%s ends the connection with the bytes as evidence', async (_, line, evidence) => {
    await serve((_request, peer) => peer.write(`${line}\n`));
    const client = await QmpClient.connect(path);
    const waiting = client.event('STOP');
    const other = client.execute('other');
    const errors = await Promise.all([
      failure(client.execute('x')),
      failure(waiting),
      failure(other),
    ]);
    for (const error of errors) {
      expect(error.code).toBe('protocol');
      expect(error.evidence).toContain(evidence);
    }
    expect(errors[0].message).toContain('x');
    expect(errors[1].message).toContain('STOP');
    expect((await client.closed)?.evidence).toBe(evidence);
    expect(client.state).toBe('closed');
    expect((await failure(client.execute('after'))).code).toBe('closed');
    expect((await failure(client.event('STOP'))).code).toBe('closed');
  });

  test('evidence is at most 200 bytes', async () => {
    await serve((_request, peer) => peer.write(`${'x'.repeat(1000)}\n`));
    const client = await QmpClient.connect(path);
    const error = await failure(client.execute('x'));
    expect(error.evidence).toContain('x'.repeat(200));
    expect(error.evidence).not.toContain('x'.repeat(201));
  });

  test('a line of 8 MB is read', async () => {
    const text = 'x'.repeat(8_000_000);
    await serve(({ id }, peer) => reply(peer, id, text));
    await using client = await QmpClient.connect(path);
    await expect(client.execute<string>('x')).resolves.toHaveLength(text.length);
  });

  test('a line that never ends is an error, in bounded memory', async () => {
    const block = Buffer.alloc(1 << 20, 0x20);
    let sent = 0;
    await serve((_request, peer) => {
      const pour = (): void => {
        while (!peer.destroyed && peer.writable) {
          sent += block.length;
          if (!peer.write(block)) break;
        }
      };
      peer.on('drain', pour);
      pour();
    });
    const client = await QmpClient.connect(path);
    const before = process.memoryUsage().arrayBuffers;
    const error = await failure(client.execute('x', undefined, { timeoutMs: 30_000 }));
    expect(error.code).toBe('protocol');
    expect(Number(/(\d+) bytes without the end/.exec(error.message)?.[1])).toBeGreaterThan(
      64 << 20,
    );
    expect(sent).toBeLessThan(80 << 20);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(256 << 20);
  });

  test('closing with commands pending rejects each, with its own name', async () => {
    await serve(({ execute }, peer) => {
      if (execute === 'b') peer.end('{"ret');
    });
    const client = await QmpClient.connect(path);
    const stop = client.event(['STOP', 'SHUTDOWN']);
    const errors = await Promise.all([
      failure(client.execute('a')),
      failure(client.execute('b')),
      failure(stop),
    ]);
    expect(errors.map(({ code }) => code)).toEqual(['closed', 'closed', 'closed']);
    expect(errors.map(({ evidence }) => evidence?.split(':')[0])).toEqual([
      'a',
      'b',
      'STOP or SHUTDOWN',
    ]);
    expect(errors[0].evidence).toContain('{"ret');
    expect((await client.closed)?.code).toBe('closed');
  });
});

describe('events', () => {
  test('carry name, data and QEMU’s time', async () => {
    await serve(({ id }, peer) => {
      peer.write(eventLine('SHUTDOWN', { guest: false }) + eventLine('RESUME'));
      reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    const events: QmpEvent[] = [];
    client.onEvent((event) => events.push(event));
    await client.execute('x');
    const timestampUs = 1_700_000_000_123_456;
    expect(events).toEqual([
      { name: 'SHUTDOWN', data: { guest: false }, timestampUs },
      { name: 'RESUME', data: {}, timestampUs },
    ]);
  });

  test('one called "error" is an event as any other', async () => {
    await serve(({ id }, peer) => {
      peer.write(eventLine('error', { message: 'x' }));
      reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    const event = client.event('error');
    await client.execute('x');
    expect((await event).data).toEqual({ message: 'x' });
  });

  test('a waiter sees one that comes before its command’s reply', async () => {
    await serve(({ id }, peer) => {
      peer.write(eventLine('STOP'));
      reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    const stopped = client.event(['SUSPEND', 'STOP']);
    await client.execute('stop');
    expect((await stopped).name).toBe('STOP');
  });

  test('a waiter has a time limit if it wants one, and can be given up', async () => {
    await serve();
    await using client = await QmpClient.connect(path);
    const error = await failure(client.event('STOP', { timeoutMs: 20 }));
    expect(error.code).toBe('timeout');
    expect(error.evidence).toBe('STOP');
    expect(error.stack).toContain('unit/qmp/client.test.ts');
    const reason = new Error('enough');
    const given = client.event('STOP', { signal: AbortSignal.abort(reason) });
    await expect(given).rejects.toBe(reason);
  });

  test('a waiter that nobody awaits does not end the process', async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    await serve((_request, peer) => peer.destroy());
    const client = await QmpClient.connect(path);
    void client.event('STOP');
    await failure(client.execute('x'));
    await settled(10);
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });

  test('100,000 at once all arrive', async () => {
    const flood = eventLine('RTC_CHANGE', { offset: 1 }).repeat(100_000);
    await serve(({ id }, peer) => {
      peer.write(flood);
      reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    let count = 0;
    client.onEvent(() => count++);
    await client.execute('x');
    expect(count).toBe(100_000);
  });

  test('a listener that throws is counted, and disturbs nobody', async () => {
    await serve(({ id }, peer) => {
      peer.write(eventLine('STOP'));
      reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    const thrown = new Error('mine');
    client.onEvent(() => {
      throw thrown;
    });
    let count = 0;
    const off = client.onEvent(() => count++);
    await client.execute('x');
    off();
    await client.execute('y');
    expect(count).toBe(1);
    expect(client.listenerErrors).toEqual({ count: 2, last: thrown });
  });

  test('a listener that adds a listener does not feed it the same event', async () => {
    await serve(({ id }, peer) => {
      peer.write(eventLine('STOP'));
      reply(peer, id);
    });
    await using client = await QmpClient.connect(path);
    let calls = 0;
    const again = (): void => {
      calls++;
      client.onEvent(again);
    };
    client.onEvent(again);
    await client.execute('x');
    expect(calls).toBe(1);
  });
});

describe('closing', () => {
  test('settles `closed` with nothing, rejects what is pending, and may be repeated', async () => {
    await serve();
    const client = await QmpClient.connect(path);
    const pending = failure(client.execute('x'));
    await client.close();
    await client.close();
    expect((await pending).code).toBe('closed');
    await expect(client.closed).resolves.toBeUndefined();
    expect(client.state).toBe('closed');
  });

  test('a peer that goes away while we write', async () => {
    await listen((peer) => {
      peer.write(GREETING);
      peer.once('data', () => {
        peer.write(OK);
        peer.once('data', () => peer.destroy());
      });
    });
    const client = await QmpClient.connect(path);
    const big = { text: 'x'.repeat(4_000_000) };
    const errors = await Promise.all([
      failure(client.execute('a', big)),
      failure(client.execute('b', big)),
    ]);
    expect(errors.map(({ code }) => code)).toEqual(['closed', 'closed']);
    expect(errors[0].evidence).toMatch(/EPIPE|ECONNRESET/);
  });
});
