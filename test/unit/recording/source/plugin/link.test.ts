import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PluginLink } from '../../../../../src/recording/source/plugin/link.ts';
import { HEAD_BYTES, WireType, message } from '../../../../../src/sources/plugin/wire.ts';
import { recordsMessage } from '../../../../support/plugin-records.ts';
import { until } from '../../../../support/soon.ts';

const TARGET = 'x86_64';

let dir: string;
let link: PluginLink;
let said: string[];
let problems: string[];
const sockets: Socket[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-link-'));
  said = [];
  problems = [];
  const onProblem = (words: string) => void problems.push(words);
  link = await PluginLink.listen(join(dir, 'sock'), {
    overflow: 'wait',
    target: TARGET,
    onProblem,
  });
  link.listenWith({
    onMessage: (type, body) => void said.push(`${type} ${body.length}`),
    onClose: () => void said.push('closed'),
  });
});

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  link.close();
  rmSync(dir, { recursive: true, force: true });
});

function hello({ version = 1, recordBytes = 48, target = TARGET, magic = 'MMIOPLUG' } = {}) {
  const body = Buffer.alloc(40);
  body.write(magic, 0, 'latin1');
  body.writeUInt32LE(version, 8);
  body.writeUInt32LE(recordBytes, 12);
  body.write(target, 16, 'latin1');
  return message(WireType.hello, body);
}

/** Connects, says something, and collects what is answered. */
function say(...bytes: readonly Uint8Array[]) {
  const socket = createConnection(join(dir, 'sock'));
  sockets.push(socket);
  let answer = Buffer.alloc(0);
  let closed = false;
  socket.on('data', (chunk) => (answer = Buffer.concat([answer, chunk])));
  socket.on('error', () => undefined);
  socket.on('close', () => (closed = true));
  for (const part of bytes) socket.write(part);
  return {
    socket,
    isClosed: () => closed,
    type: () => (answer.length < HEAD_BYTES ? undefined : answer.readUInt32LE(0)),
    words: () => answer.toString('utf8', HEAD_BYTES),
  };
}

test('a plugin is welcomed, told the ranges, and heard, however its bytes arrive', async () => {
  link.want([{ start: 0n, last: 1n }]);
  const records = recordsMessage([{ timeNs: 1n, vcpu: 0, number: 0 }]);
  const plugin = say();
  for (const byte of Buffer.concat([hello(), records])) {
    plugin.socket.write(Buffer.from([byte]));
    await sleep(0);
  }
  await until('its records are told', () => said.length > 0);
  expect(said).toEqual([`${WireType.records} 48`]);
  expect(plugin.type()).toBe(WireType.welcome);
  expect(plugin.words().length).toBe(8 + HEAD_BYTES + 16 + 16);
  plugin.socket.end();
  await until('its end is told', () => said.includes('closed'));
  expect(problems).toEqual([]);
});

test.each([
  ['garbage', Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'), /not the QEMU plugin: GET/],
  ['another magic', hello({ magic: 'SOMEBODY' }), /not the QEMU plugin: SOMEBODY/],
  [
    'a plugin of another version',
    hello({ version: 2 }),
    /its version is 2, ours 1\): build it again/,
  ],
  ['one with other records', hello({ recordBytes: 56 }), /of another mmiobridge/],
  ['one of another target', hello({ target: 'aarch64' }), /a QEMU for aarch64, not for x86_64/],
])('%s is sent away, and told why', async (_, bytes, why) => {
  const stranger = say(bytes);
  await until('it is sent away', () => stranger.isClosed());
  expect(stranger.type()).toBe(WireType.refused);
  expect(stranger.words()).toMatch(why);
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatch(why);
  // The right one can still come.
  const plugin = say(hello());
  await until('it is welcomed', () => plugin.type() === WireType.welcome);
});

test('a second plugin is sent away, and the first is still heard', async () => {
  const first = say(hello());
  await until('it is welcomed', () => first.type() === WireType.welcome);
  const second = say(hello());
  await until('it is sent away', () => second.isClosed());
  expect(second.words()).toBe('another QEMU is being recorded here');
  first.socket.write(message(WireType.tick, Buffer.alloc(8)));
  await until('the first is heard', () => said.length === 1);
});

test.each([
  ['a type that there is not', message(77, Buffer.alloc(8))],
  ['half a record', message(WireType.records, Buffer.alloc(40))],
  ['a length that cannot be', Buffer.from([2, 0, 0, 0, 255, 255, 255, 255])],
])('a plugin that sends %s is heard no more, and the user told', async (_, bytes) => {
  const plugin = say(hello());
  await until('it is welcomed', () => plugin.type() === WireType.welcome);
  plugin.socket.write(bytes);
  await until('it is hung up on', () => plugin.isClosed());
  await until('its end is told', () => said.includes('closed'));
  expect(said).toEqual(['closed']);
  expect(problems.join()).toContain('the plugin sent something that is not one of its messages');
});
