/** Captures that pages look at: as they grow, are replaced, and have more in them than fits a memory. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { CaptureFeed, type RecorderLink } from '../../../src/server/capture-feed.ts';
import { CaptureIndex } from '../../../src/server/capture-index.ts';
import { FileFollower } from '../../../src/server/file-follower.ts';
import { Selections } from '../../../src/server/selections.ts';
import { CaptureSink } from '../../../src/sinks/capture.ts';
import { FileOutput } from '../../../src/sinks/output.ts';
import { PayloadDecoder } from '../../../src/wire/payload.ts';
import { writeBigCapture } from '../../support/big-capture.ts';
import { cutAt, EVENTS, frameOffsets, HEADER, readCapture } from '../../support/captures.ts';
import { Workplace } from '../../support/cli.ts';
import { SOON } from '../../support/soon.ts';

const NOBODY: RecorderLink = { status: async () => undefined, mark: async () => undefined };

afterEach(() => vi.restoreAllMocks());

/** The index of a finished capture, read to its end. */
async function indexOf(path: string): Promise<CaptureIndex> {
  const index = new CaptureIndex(await FileFollower.open(path));
  await index.read(new AbortController().signal);
  return index;
}

test('what a damaged frame says is left out, as convert does', async () => {
  await using place = new Workplace();
  const path = place.path('a.mmiocap');
  await writeBigCapture(path, { rows: 9000, ended: true });
  const capture = readFileSync(path);
  const offsets = frameOffsets(capture);
  // A value of an access in the middle: the checksum is wrong, and the frame can be decoded.
  const batches = offsets.filter((at) => capture[at + 8] === 0x12);
  const frame = batches[Math.floor(batches.length / 2)]!;
  capture[frame + 8 + Math.floor(capture.readUInt32LE(frame) / 2)]! ^= 1;
  writeFileSync(path, capture);
  const index = await indexOf(path);
  const { items } = await readCapture(cutAt(capture));
  const rows = items.flatMap((item) => ('rows' in item ? item.rows : []));
  expect(rows.length).toBeLessThan(9000);
  expect([index.rows, index.totals.damages]).toEqual([rows.length, 1]);
  let again = 0;
  for (const block of index.blocks) {
    for await (const batch of index.batches(block)) again += batch.length;
  }
  expect(again).toBe(rows.length);
  await index.follower.close();
});

describe('a feed', () => {
  test.each([
    ['there is no file', async (path: string) => rmSync(path)],
    [
      'there is another one',
      async (path: string) => {
        await writeBigCapture(`${path}.new`, { rows: 10, ended: false });
        renameSync(`${path}.new`, path);
      },
    ],
  ])('that is closed while %s gives back all files that it opened', async (_when, replace) => {
    await using place = new Workplace();
    const path = place.path('a.mmiocap');
    await writeBigCapture(path, { rows: 1000, ended: false });
    const opened = vi.spyOn(FileFollower, 'open');
    const closed = vi.spyOn(FileFollower.prototype, 'close');
    const said: string[] = [];
    const feed = await CaptureFeed.open(path, NOBODY, (line) => void said.push(line));
    await vi.waitFor(() => expect(feed.index.rows).toBe(1000), SOON);
    await replace(path);
    await delay(60);
    await feed.close();
    const followers = await Promise.allSettled(
      opened.mock.results.map(({ value }) => value as Promise<FileFollower>),
    );
    const open = followers.filter(({ status }) => status === 'fulfilled');
    expect(closed.mock.instances).toHaveLength(open.length);
    expect(said).toEqual([]);
  });

  test('goes on with the file that took the place of the first', async () => {
    await using place = new Workplace();
    const path = place.path('a.mmiocap');
    await writeBigCapture(path, { rows: 1000, ended: false });
    const feed = await CaptureFeed.open(path, NOBODY, () => undefined);
    await vi.waitFor(() => expect(feed.index.rows).toBe(1000), SOON);
    await writeBigCapture(`${path}.new`, { rows: 77 });
    renameSync(`${path}.new`, path);
    await vi.waitFor(() => expect([feed.generation, feed.index.rows]).toEqual([1, 77]), SOON);
    await feed.close();
  });
});

describe('what is no access', () => {
  test('is told to the last, however much there is of it', async () => {
    await using place = new Workplace();
    const path = place.path('marks.mmiocap');
    const sink = new CaptureSink(await FileOutput.open(path));
    await sink.begin(HEADER);
    const count = 210_000;
    for (let at = 0; at < count; at++) {
      const written = sink.write({ kind: 'mark', timeNs: at, text: `mark ${at}` });
      if (written !== undefined) await written;
      if (at % 3 === 0) await sink.write({ ...EVENTS.interrupt, timeNs: at });
    }
    await sink.write(EVENTS.end);
    await sink.end();
    const index = await indexOf(path);
    expect(index.totals).toMatchObject({ marks: count, interrupts: count / 3 });
    const decoder = new PayloadDecoder();
    let marks = 0;
    for (let from = 0; from < index.eventsEnd;) {
      const { frames, next } = await index.events(from);
      for (const frame of frames) {
        const item = decoder.decode(frame);
        const isNext = 'kind' in item && item.kind === 'mark' && item.text === `mark ${marks}`;
        if (isNext) marks++;
      }
      expect(next).toBeGreaterThan(from);
      from = next;
    }
    expect(marks).toBe(count);
    await index.follower.close();
  });
});

test('what all who watch a selection are told is made once for each version of it', async () => {
  await using place = new Workplace();
  const path = place.path('a.mmiocap');
  await writeBigCapture(path, { rows: 5000 });
  const index = await indexOf(path);
  const selections = new Selections(index, (error) => {
    throw error;
  });
  const key = { filter: 'write', fromNs: -Infinity, toNs: Infinity };
  const [mine, theirs] = [selections.acquire(key), selections.acquire(key)];
  expect(theirs).toBe(mine);
  await vi.waitFor(() => expect(mine.caughtUp).toBe(true), SOON);
  const message = selections.message(mine);
  expect(message).toMatchObject({ caughtUp: true, reads: 0, seen: 5000 });
  expect(selections.message(theirs)).toBe(message);
  await index.follower.close();
});
