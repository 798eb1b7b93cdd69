import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SegmentFile } from '../../../../src/recording/spool/segment-file.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-segment-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const text = (name: string) => readFileSync(join(dir, name), 'latin1');

test('is written behind what was there, and left for the next', () => {
  const before = new SegmentFile(join(dir, '1'), () => undefined);
  expect(before.append(Buffer.from('ab'))).toBe(true);
  before.close();
  const segment = new SegmentFile(join(dir, '1'), () => undefined);
  expect(segment.append(Buffer.from('cd'))).toBe(true);
  segment.moveTo(join(dir, '2'));
  expect(segment.append(Buffer.from('ef'))).toBe(true);
  segment.close();
  expect([text('1'), text('2')]).toEqual(['abcd', 'ef']);
});

test('stays in its segment where the next cannot be opened', () => {
  const segment = new SegmentFile(join(dir, '1'), () => undefined);
  expect(() => segment.moveTo(join(dir, 'none', '2'))).toThrow('ENOENT');
  expect(segment.append(Buffer.from('ab'))).toBe(true);
  segment.close();
  expect(text('1')).toBe('ab');
  expect(existsSync(join(dir, 'none'))).toBe(false);
});
