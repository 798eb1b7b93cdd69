/** What QEMU says on standard error of accesses that failed. */
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { StderrTail } from '../../../../src/recording/source/log/stderr-tail.ts';

let dir = '';
let path = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'stderr-tail-'));
  path = join(dir, 'stderr');
});
afterEach(() => rmSync(dir, { recursive: true }));

const START = { startSec: 1_700_000_000, startNs: 0 };
const failed = (offset: string) =>
  `2023-11-14T22:13:21.500000Z qemu-system-x86_64: vfio_region_read(0000:01:00.0:region0+${offset}, 4) failed: Input/output error\n`;

test('each line comes once, also to the recorder that goes on, and none in halves', () => {
  appendFileSync(path, `warning: something else\n${failed('0x10')}${failed('0x14').slice(0, 60)}`);
  const first = new StderrTail(path, START, 0);
  expect(first.read()).toEqual([
    { timeNs: 1.5e9, text: failed('0x10').trimEnd(), at: 'warning: something else\n'.length },
  ]);
  expect(first.read()).toEqual([]);
  const { at } = first;
  first.close();
  expect(first.read()).toEqual([]);
  // The recorder was killed; the other half came meanwhile.
  appendFileSync(path, failed('0x14').slice(60));
  const second = new StderrTail(path, START, at);
  expect(second.read()).toEqual([{ timeNs: 1.5e9, text: failed('0x14').trimEnd(), at }]);
  appendFileSync(path, failed('0x18'));
  expect(second.read().map(({ text }) => text)).toEqual([failed('0x18').trimEnd()]);
  second.close();
});
