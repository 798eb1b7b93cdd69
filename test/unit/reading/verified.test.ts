/** A recording is held against what it says of itself, and not believed where that is not so. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EndEvent, RecordingEvent } from '../../../src/model/events.ts';
import { isBatch, type StreamItem } from '../../../src/model/stream.ts';
import { convert, type Converted } from '../../../src/reading/convert.ts';
import { captureOf, frameOffsets } from '../../support/captures.ts';
import { SAMPLE_EVENTS, SAMPLE_HEADER, SAMPLE_ITEMS } from '../../support/sample-session.ts';

let dir = '';
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-verified-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const INCIDENTS: ReadonlySet<string> = new Set(['loss', 'damage']);
const isIncident = (item: StreamItem) => !isBatch(item) && INCIDENTS.has(item.kind);
const END: EndEvent = {
  ...SAMPLE_EVENTS.end,
  complete: true,
  counters: { ...SAMPLE_EVENTS.end.counters, lost: 0, lossEvents: 0, damagedLines: 0 },
};
/** Nothing is wrong with it. */
const GOOD: readonly StreamItem[] = [
  ...SAMPLE_ITEMS.filter((item) => !isIncident(item) && (isBatch(item) || item.kind !== 'end')),
  END,
];

async function converted(bytes: Uint8Array, to = 'out.mmiocap'): Promise<Converted> {
  const input = join(dir, 'in');
  writeFileSync(input, bytes);
  const none = { selection: [], barBases: [], from: undefined, format: undefined };
  return convert([input], [join(dir, to)], { ...none, textExtra: [] });
}

/** What speaks against it. What comes out of it is not believed either, when it is read again. */
async function doubtsOf(bytes: Uint8Array): Promise<readonly string[]> {
  const { doubts, complete } = await converted(bytes);
  const again = await converted(readFileSync(join(dir, 'out.mmiocap')));
  return complete || again.complete ? ['it is believed'] : doubts;
}

const withEnd = (end: EndEvent, items = GOOD) =>
  captureOf([...items.slice(0, -1), end], SAMPLE_HEADER);

describe('a capture', () => {
  test('that says what is there is complete, and so is what is made of it', async () => {
    const capture = await captureOf(GOOD, SAMPLE_HEADER);
    expect(await converted(capture)).toMatchObject({ complete: true, doubts: [] });
    expect(readFileSync(join(dir, 'out.mmiocap'))).toEqual(capture);
  });

  test('that says of itself that it is incomplete', async () => {
    expect(await doubtsOf(await withEnd({ ...END, complete: false }))).toEqual([
      'it says of itself that it is incomplete',
    ]);
  });

  test('of which any frame is missing, or doubled', async () => {
    const capture = await captureOf(GOOD, SAMPLE_HEADER);
    const at = frameOffsets(capture);
    for (const [frame, offset] of at.slice(1, -1).entries()) {
      const next = at[frame + 2]!;
      const [before, it, behind] = [
        capture.subarray(0, offset),
        capture.subarray(offset, next),
        capture.subarray(next),
      ];
      const item = GOOD[frame]!;
      // Of what is no access, and nothing that accesses refer to, no count is kept.
      const isCounted = isBatch(item) || ['device', 'region', 'map', 'end'].includes(item.kind);
      const without = await converted(Buffer.concat([before, behind]));
      expect([frame, without.complete]).toEqual([frame, !isCounted]);
      const twice = await converted(Buffer.concat([before, it, it, behind]));
      const matters = isBatch(item) || item.kind === 'end';
      expect([frame, twice.complete]).toEqual([frame, !matters]);
    }
  });

  test('that is cut off between two frames', async () => {
    const capture = await captureOf(GOOD, SAMPLE_HEADER);
    for (const offset of frameOffsets(capture).slice(1, -1)) {
      expect(await doubtsOf(capture.subarray(0, offset))).toEqual([
        'it has no end: it was cut off, or is still being recorded',
      ]);
    }
  });

  test.each<[string, Partial<EndEvent['counters']>, string]>([
    ['reads', { reads: 7 }, 'it tells of 7 reads, and has 5'],
    ['writes', { writes: 2 }, 'it tells of 2 writes, and has 3'],
    ['loss', { lost: 5, lossEvents: 1 }, 'it tells of 5 accesses that are missing, and has 0'],
    ['damage', { damagedLines: 1 }, 'it tells of 1 damaged places, and has 0'],
  ])('whose counters tell of other %s', async (_, counters, doubt) => {
    const capture = await withEnd({ ...END, counters: { ...END.counters, ...counters } });
    const { complete, doubts } = await converted(capture);
    expect([complete, doubts[0]]).toEqual([false, doubt]);
  });

  test('that tells of more than it has: what is missing is a loss', async () => {
    const capture = await withEnd({ ...END, counters: { ...END.counters, reads: 7 } });
    const { totals } = await converted(capture);
    expect(totals).toMatchObject({ reads: 5, lost: 2, lossEvents: 1 });
  });

  test('that speaks of what it has not told of', async () => {
    const without = (kind: RecordingEvent['kind']) =>
      GOOD.filter((item) => isBatch(item) || item.kind !== kind);
    expect(await doubtsOf(await captureOf(without('device'), SAMPLE_HEADER))).toEqual([
      'it has device 0, of which nothing was told',
    ]);
    expect(await doubtsOf(await captureOf(without('map'), SAMPLE_HEADER))).toEqual([
      'it has mapping 1, of which nothing was told',
    ]);
  });
});

describe('text of our own', () => {
  const text = async () => {
    await converted(await captureOf(GOOD, SAMPLE_HEADER), 'good.mmiotrace');
    return readFileSync(join(dir, 'good.mmiotrace'), 'latin1');
  };

  test('that says what is there is complete', async () => {
    expect(await converted(Buffer.from(await text()))).toMatchObject({
      complete: true,
      doubts: [],
    });
  });

  test('of which a line is missing, or doubled, or that is cut off', async () => {
    const lines = (await text()).split('\n').slice(0, -1);
    const counted = /^[RW] |^UNKNOWN|^MARK \S+ mmiobridge: (?:pio|end) /;
    for (const [at, line] of lines.entries()) {
      if (!counted.test(line)) continue;
      for (const others of [[], [line, line]]) {
        const changed = lines.toSpliced(at, 1, ...others).join('\n');
        const { complete } = await converted(Buffer.from(`${changed}\n`));
        expect([line, others.length, complete]).toEqual([line, others.length, false]);
      }
      const { complete } = await converted(Buffer.from(`${lines.slice(0, at).join('\n')}\n`));
      expect([line, complete]).toEqual([line, false]);
    }
  });

  test('that says of itself that it is incomplete', async () => {
    const changed = (await text()).replace('end complete', 'end incomplete');
    const { complete, doubts } = await converted(Buffer.from(changed));
    expect([complete, doubts]).toEqual([false, ['it says of itself that it is incomplete']]);
  });

  test("in which a user's mark says what only we may say", async () => {
    const words = ['mmiobridge: end complete, reads 0, writes 0', 'Lost 5 events.', 'user: x'];
    for (const said of words) {
      const mark = { ...SAMPLE_EVENTS.mark, text: said };
      const items = [...GOOD.slice(0, -1), mark, END];
      await converted(await captureOf(items, SAMPLE_HEADER), 'marked.mmiotrace');
      const marked = readFileSync(join(dir, 'marked.mmiotrace'), 'latin1');
      expect(marked).toContain(`user: ${said}\n`);
      expect(await converted(Buffer.from(marked))).toMatchObject({ complete: true });
    }
  });
});
