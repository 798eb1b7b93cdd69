import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Spool, segmentPath } from '../../../../src/recording/spool/spool.ts';

let dir = '';
beforeEach(() => {
  dir = join(mkdtempSync(join(tmpdir(), 'spool-')), 'spool');
});
afterEach(() => {
  rmSync(join(dir, '..'), { recursive: true });
});

/** QEMU writes. */
const logs = (segment: number, text: string) => appendFileSync(segmentPath(dir, segment), text);

async function readText(spool: Spool, until?: { segment: number; offset: number }) {
  return Buffer.from((await spool.read(until)).bytes).toString();
}

test('what QEMU has logged is read on from where reading was', async () => {
  const spool = await Spool.create(dir);
  expect(spool.currentPath).toBe(segmentPath(dir, 1));
  expect(await readText(spool)).toBe('');
  logs(1, 'one\n');
  expect(await readText(spool)).toBe('one\n');
  expect(await readText(spool)).toBe('');
  logs(1, 'two\n');
  expect(await readText(spool)).toBe('two\n');
  expect(spool.position).toEqual({ segment: 1, offset: 8 });
  await spool.close();
});

test('reading stops at the place that it is told, in that segment only', async () => {
  const spool = await Spool.create(dir);
  logs(1, 'one\ntwo\n');
  expect(await readText(spool, { segment: 1, offset: 4 })).toBe('one\n');
  expect(await readText(spool, { segment: 1, offset: 4 })).toBe('');
  expect(await readText(spool, { segment: 1, offset: 2 })).toBe('');
  expect(await readText(spool, { segment: 2, offset: 0 })).toBe('two\n');
  await spool.close();
});

test('segments are read one behind the other, and deleted when they are safe', async () => {
  const spool = await Spool.create(dir);
  logs(1, 'one\n');
  expect(spool.nextPath).toBe(segmentPath(dir, 2));
  logs(2, 'second\n');
  spool.advanceWriter();
  expect(spool.behind).toBe(true);
  expect(await spool.end()).toEqual({ segment: 2, offset: 7 });
  expect(await spool.usedBytes()).toBe(11);
  expect(await readText(spool)).toBe('one\n');
  await spool.advanceReader();
  expect(spool.behind).toBe(false);
  expect(await readText(spool)).toBe('second\n');
  expect(await spool.usedBytes()).toBe(11);

  // Only what is before the place of a checkpoint may go.
  await spool.release({ segment: 1, offset: 4 });
  expect(readdirSync(dir)).toEqual(['000001', '000002']);
  await spool.release({ segment: 2, offset: 0 });
  expect(readdirSync(dir)).toEqual(['000002']);
  expect(await spool.usedBytes()).toBe(7);
  await spool.close();
});

test('another process goes on at a place, with all segments that QEMU has written since', async () => {
  const first = await Spool.create(dir);
  logs(1, 'read\nnot read\n');
  await readText(first, { segment: 1, offset: 5 });
  const { position } = first;
  await first.close();
  logs(2, 'second\n');
  logs(3, 'third\n');
  writeFileSync(join(dir, 'not a segment'), '');

  const spool = await Spool.reopen(dir, position);
  expect(await spool.end()).toEqual({ segment: 3, offset: 6 });
  const texts: string[] = [];
  for (;;) {
    texts.push(await readText(spool));
    if (!spool.behind) break;
    await spool.advanceReader();
  }
  expect(texts).toEqual(['not read\n', 'second\n', 'third\n']);
  expect(spool.nextPath).toBe(segmentPath(dir, 4));
  await spool.release(spool.position);
  expect(existsSync(segmentPath(dir, 3))).toBe(true);
  expect(await spool.usedBytes()).toBe(6);
  await spool.close();
});

test('also with segments that the first one died before deleting', async () => {
  await Spool.create(dir);
  for (const segment of [3, 4, 5]) logs(segment, 'x\n');
  const spool = await Spool.reopen(dir, { segment: 5, offset: 1 });
  expect(await spool.usedBytes()).toBe(6);
  await spool.release(spool.position);
  expect(readdirSync(dir)).toEqual(['000005']);
  expect(await readText(spool)).toBe('\n');
  await spool.close();
});

test('a segment that QEMU began without our knowing is taken over, an empty one is not', async () => {
  const spool = await Spool.create(dir);
  try {
    writeFileSync(spool.nextPath, '');
    expect(spool.adoptNext()).toBe(false);
    writeFileSync(spool.nextPath, 'a line\n');
    const next = spool.nextPath;
    expect(spool.adoptNext()).toBe(true);
    expect(spool.currentPath).toBe(next);
    expect(spool.behind).toBe(true);
  } finally {
    await spool.close();
  }
});
