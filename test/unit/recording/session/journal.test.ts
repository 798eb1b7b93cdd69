import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Journal, type JournalEntry } from '../../../../src/recording/session/journal.ts';

let dir = '';
let path = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'journal-'));
  path = join(dir, 'journal.ndjson');
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

function mark(text: string, offset: number, segment = 1): JournalEntry {
  return { at: { segment, offset }, event: { kind: 'mark', timeNs: offset, text } };
}

/** The texts of the marks that come out when everything up to this place has been read. */
function takeAll(journal: Journal, offset: number, segment = 1): string[] {
  const texts: string[] = [];
  for (let entry; (entry = journal.take({ segment, offset })) !== undefined;) {
    if (entry.event.kind === 'mark') texts.push(entry.event.text);
  }
  return texts;
}

test('an entry comes out when all before its place has been read, and not earlier', () => {
  const journal = new Journal(path);
  journal.add(mark('a', 10));
  journal.add(mark('b', 5, 2));
  expect(journal.nextAt).toEqual({ segment: 1, offset: 10 });
  expect(takeAll(journal, 9)).toEqual([]);
  expect(takeAll(journal, 10)).toEqual(['a']);
  expect(takeAll(journal, 1000)).toEqual([]);
  expect(takeAll(journal, 5, 2)).toEqual(['b']);
  expect(journal.nextAt).toBeUndefined();
  expect(journal.taken).toBe(2);
});

test('entries keep their order, also where their places overtake each other', () => {
  const journal = new Journal(path);
  journal.add(mark('a', 10));
  journal.add(mark('b', 8));
  expect(takeAll(journal, 9)).toEqual([]);
  expect(takeAll(journal, 10)).toEqual(['a', 'b']);
  expect(takeAll(new Journal(path, 0), 10)).toEqual(['a', 'b']);
});

test('what the outputs have is not given again', () => {
  const journal = new Journal(path);
  for (const text of ['a', 'b', 'c']) journal.add(mark(text, 1));
  const resumed = new Journal(path, 2);
  expect(resumed.taken).toBe(2);
  expect(takeAll(resumed, 1)).toEqual(['c']);
  expect(resumed.taken).toBe(3);
});

test('half a line at the end is dropped, and what is added later is whole', () => {
  new Journal(path).add(mark('größer', 1));
  appendFileSync(path, '{"at":{"segment":1,"off');
  const resumed = new Journal(path, 0);
  resumed.add(mark('later', 2));
  expect(takeAll(resumed, 2)).toEqual(['größer', 'later']);
  expect(takeAll(new Journal(path, 0), 2)).toEqual(['größer', 'later']);
  expect(readFileSync(path, 'utf8').trimEnd().split('\n')).toHaveLength(2);
});

test('an entry that cannot be written down has not happened', () => {
  const journal = new Journal(join(dir, 'nowhere', 'journal.ndjson'));
  expect(() => journal.add(mark('a', 1))).toThrow(/ENOENT/);
  expect(journal.nextAt).toBeUndefined();
});

test('a recording that was given no entry has no journal', () => {
  expect(takeAll(new Journal(path, 0), 1000)).toEqual([]);
});

test('what comes when all has been taken is refused, and leaves nothing behind', () => {
  const journal = new Journal(path);
  journal.close();
  expect(() => journal.add(mark('late', 1))).toThrow('the recording has ended');
  expect(existsSync(path)).toBe(false);
  expect(journal.nextAt).toBeUndefined();
});
