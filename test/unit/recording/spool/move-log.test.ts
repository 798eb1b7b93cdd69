/** A log that somebody sends elsewhere is not brought back without a word, whenever that is. */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { moveLog } from '../../../../src/recording/spool/move-log.ts';

let dir = '';
let told: string[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-move-'));
  told = [];
  writeFileSync(join(dir, '1'), 'begun\n');
});
afterEach(() => rmSync(dir, { recursive: true }));

/** A QEMU: what it has open, and what happens when it is asked for the nth time. */
function qemu(open: string[], at: Readonly<Record<number, () => void>> = {}) {
  let asked = 0;
  return {
    holdsOpen: (path: string) => {
      at[++asked]?.();
      return open.includes(path);
    },
    othersFiles: () => open.filter((path) => !path.startsWith(dir)),
    logInto: async (path: string) => {
      at[0]?.();
      told.push(path);
      open.push(path);
    },
  };
}

const move = (writer: ReturnType<typeof qemu>) => moveLog(writer, join(dir, '1'), join(dir, '2'));
const line = () => appendFileSync(join(dir, '1'), 'more\n');

test('one that is written goes on at once', async () => {
  expect(await move(qemu([join(dir, '1')], { 2: line }))).toBe('moved');
  expect(told).toEqual([join(dir, '2')]);
});

test('one that is quiet goes on when it has stayed open', async () => {
  expect(await move(qemu([join(dir, '1')]))).toBe('moved');
});

test('one that QEMU closes a while after it has left it was left', async () => {
  const open = [join(dir, '1'), '/elsewhere.log'];
  expect(await move(qemu(open, { 20: () => open.shift() }))).toBe('left');
  expect(told).toEqual([]);
});

test('one that is sent elsewhere just when QEMU is told comes back, and that is seen', async () => {
  const open = [join(dir, '1'), '/a.serial'];
  const elsewhere = () => open.push('9 /dev/null');
  expect(await move(qemu(open, { 2: line, 0: elsewhere }))).toBe('back');
  expect(told).toEqual([join(dir, '2')]);
});

test('one that is sent elsewhere after QEMU was told is elsewhere now', async () => {
  const open = [join(dir, '1'), '/a.serial'];
  const elsewhere = () => open.push('9 /elsewhere.log');
  const closed = () => open.splice(open.indexOf(join(dir, '2')), 1);
  expect(await move(qemu(open, { 2: line, 0: elsewhere, 20: closed }))).toBe('moved');
});
