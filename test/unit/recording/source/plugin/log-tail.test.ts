import { appendFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { LogTail, logPath } from '../../../../../src/recording/source/plugin/log-tail.ts';
import { SOON } from '../../../../support/soon.ts';

let dir: string;
/** A QEMU that logs where it is told to, and may not let go of a file at once. */
let qemu: { path: string; held: Set<string>; say: (line: string) => void };
const writer = () => ({
  logInto: (path: string) => {
    qemu.held.add(qemu.path);
    qemu.path = path;
    writeFileSync(path, '');
    return Promise.resolve();
  },
  holdsOpen: (path: string) => qemu.path === path || qemu.held.has(path),
});

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-tail-'));
  const path = logPath(dir, 1);
  qemu = { path, held: new Set(), say: (line) => appendFileSync(qemu.path, line) };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const textOf = (lines: readonly { readonly bytes: Uint8Array }[]) =>
  lines.map(({ bytes }) => Buffer.from(bytes).toString()).join('');

test('whole lines come, once, with their times; a file that is not there yet has none', async () => {
  const tail = new LogTail(dir);
  expect(await tail.read(writer())).toEqual([]);
  qemu.say('7@1800000000.000002:one\n2027-01-15T08:00:00.000003Z two\nno stamp\nha');
  const lines = await tail.read(writer());
  expect(textOf(lines)).toContain('no stamp\n');
  const ns = lines.map(({ hi, lo }) => (BigInt(hi) << 32n) + BigInt(lo));
  // What has no stamp has the time of the line before.
  expect(ns).toEqual([2000n, 3000n, 3000n].map((n) => 1_800_000_000_000_000_000n + n));
  qemu.say('lf\n');
  expect(textOf(await tail.read(writer()))).toBe('half\n');
  expect(await tail.read(writer())).toEqual([]);
  await tail.close();
});

test('a long file is followed by another, and none of its lines is missed', async () => {
  const tail = new LogTail(dir);
  const block = `7@1800000000.000002:${'x'.repeat(1000)}\n`.repeat(1000);
  for (let i = 0; i < 18; i++) qemu.say(block);
  let length = textOf(await tail.read(writer())).length;
  // It writes into the first, and not elsewhere: then it is told of the second.
  qemu.say(block);
  await vi.waitFor(() => expect(qemu.path).toBe(logPath(dir, 2)), SOON);
  // A vCPU was in the middle of a line when QEMU was told.
  appendFileSync(logPath(dir, 1), 'late\n');
  qemu.say('first of the second\n');
  length += textOf(await tail.read(writer())).length;
  appendFileSync(logPath(dir, 1), 'later\n');
  qemu.held.clear();
  const rest = textOf(await tail.read(writer()));
  expect(rest.endsWith('later\nfirst of the second\n')).toBe(true);
  expect(length + rest.length).toBe(19 * block.length + 5 + 6 + 20);
  await tail.close();
});

test('goes on at a place, and finds the file that QEMU was told of last', async () => {
  qemu.say('old\nnew\n');
  writeFileSync(logPath(dir, 2), 'last\n');
  const tail = new LogTail(dir, { segment: 1, offset: 4 });
  expect(textOf(await tail.read(undefined))).toBe('new\nlast\n');
  await tail.close();
  expect(existsSync(logPath(dir, 1))).toBe(true);
});

test('a line without an end comes in pieces, and is not kept until it has one', async () => {
  const tail = new LogTail(dir);
  const block = 'x'.repeat(512 * 1024);
  for (let i = 0; i < 6; i++) qemu.say(block);
  const pieces = await tail.read(writer());
  expect(Math.max(...pieces.map(({ bytes }) => bytes.length))).toBeLessThan(block.length);
  qemu.say('the end\n7@1800000000.000002:next\n');
  pieces.push(...(await tail.read(writer())));
  expect(textOf(pieces)).toBe(`${block.repeat(6)}the end\n7@1800000000.000002:next\n`);
  expect(textOf(pieces.slice(-1))).toBe('7@1800000000.000002:next\n');
  await tail.close();
});
