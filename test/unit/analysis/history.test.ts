import { describe, expect, test } from 'vitest';
import { changedBits } from '../../../src/analysis/bits.ts';
import { foldPolls } from '../../../src/analysis/polls.ts';
import { RegisterHistory } from '../../../src/analysis/register-history.ts';
import type { AccessBatch } from '../../../src/model/access-batch.ts';
import type { Access } from '../../support/captures.ts';
import { batch, read, write } from '../../support/recorded.ts';

function historyOf(...batches: readonly AccessBatch[]) {
  const history = new RegisterHistory(0, 8);
  for (const rows of batches) history.batch(rows);
  return history.result();
}

describe('the history of a register', () => {
  test('has its accesses, with their numbers in the recording', () => {
    const { entries, reads, writes, leftOut } = historyOf(
      batch(read(1, 4), write(2, 8, 5), read(3, 8, 6, { region: 1 })),
      batch(read(4, 8, 6, { pcLo: 9 })),
    );
    expect([reads, writes, leftOut]).toEqual([1, 1, 0]);
    expect(entries).toEqual([
      {
        write: true,
        firstNs: 2,
        lastNs: 2,
        count: 1,
        value: [5, 0],
        cpu: 0,
        pc: [0, 0],
        width: 4,
        rowNumber: 1,
      },
      {
        write: false,
        firstNs: 4,
        lastNs: 4,
        count: 1,
        value: [6, 0],
        cpu: 0,
        pc: [9, 0],
        width: 4,
        rowNumber: 3,
      },
    ]);
  });
  test('makes one of reads of one value by one vCPU, one after the other', () => {
    const { entries } = historyOf(
      batch(read(1, 8, 7), read(2, 8, 7), read(3, 4), read(4, 8, 7), read(5, 8, 7, { cpu: 1 })),
    );
    expect(entries.map(({ count, cpu, lastNs }) => [count, cpu, lastNs])).toEqual([
      [3, 0, 4],
      [1, 1, 5],
    ]);
  });
  test('makes no one of two writes', () => {
    expect(historyOf(batch(write(1, 8, 7), write(2, 8, 7))).entries).toHaveLength(2);
  });
  test('keeps the last entries, and counts those before', () => {
    const rows = Array.from({ length: 4500 }, (_, at) => write(at, 8, at));
    const { entries, leftOut, writes } = historyOf(
      batch(...rows.slice(0, 2200)),
      batch(...rows.slice(2200)),
    );
    expect([entries.length, leftOut, writes]).toEqual([2000, 2500, 4500]);
    expect(entries.at(-1)?.value).toEqual([4499, 0]);
  });
});

describe('poll loops', () => {
  const steps = (...rows: readonly Access[]) => foldPolls(historyOf(batch(...rows)).entries);

  test('are folded with the read that ended them, and say which bits did', () => {
    const [poll, next] = steps(
      read(1, 8, 0x4),
      read(2, 8, 0x4),
      read(3, 8, 0x4),
      read(9, 8, 0x83),
      write(10, 8, 1),
    );
    expect(poll).toMatchObject({
      poll: true,
      count: 4,
      firstNs: 1,
      lastNs: 9,
      value: [0x83, 0],
      endedBy: { set: [0, 1, 7], cleared: [2] },
    });
    expect(next).toMatchObject({ write: true, poll: false, before: [0x83, 0], rowNumber: 4 });
  });
  test('that nothing ended stay what they were', () => {
    const [poll] = steps(read(1, 8, 4), read(2, 8, 4), read(3, 8, 4));
    expect(poll).toMatchObject({ poll: true, count: 3, value: [4, 0], endedBy: undefined });
  });
  test('that follow each other are two: the read that ends one begins the next', () => {
    const found = steps(
      ...[1, 2, 3].map((t) => read(t, 8, 0)),
      ...[4, 5, 6].map((t) => read(t, 8, 1)),
      read(7, 8, 3),
    );
    expect(found.map(({ count, value, endedBy }) => [count, value[0], endedBy?.set])).toEqual([
      [3, 0, [0]],
      [4, 3, [1]],
    ]);
  });
  test('need three reads, of one vCPU', () => {
    expect(steps(read(1, 8, 0), read(2, 8, 0), read(3, 8, 1)).some(({ poll }) => poll)).toBe(false);
    const [poll] = steps(...[1, 2, 3].map((t) => read(t, 8, 0)), read(4, 8, 1, { cpu: 1 }));
    expect(poll).toMatchObject({ count: 3, endedBy: undefined });
  });
});

test('bits that came and went, in both halves', () => {
  expect(changedBits([0b1010, 0x8000_0000], [0b0110, 1])).toEqual({
    set: [2, 32],
    cleared: [3, 63],
  });
});
