import * as fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { escapeBytes } from '../../../src/base/escape.ts';
import type { DamageEvent } from '../../../src/model/events.ts';
import { isBatch, type StreamItem } from '../../../src/model/stream.ts';
import type { ByteOutput } from '../../../src/sinks/output.ts';
import { CaptureSink } from '../../../src/sinks/capture.ts';
import { openCapture } from '../../../src/sources/capture-file.ts';
import { FILE_HEADER_BYTES, FRAME_HEADER_BYTES, sealFrame } from '../../../src/wire/frame.ts';
import { v1 } from '../../../src/wire/generated/mmiobridge.ts';
import {
  batchOf,
  captureOf,
  cutAt,
  EVENTS,
  frameOffsets,
  HEADER,
  plain,
  PLAIN_READ,
  readCapture,
} from '../../support/captures.ts';
import { MemoryOutput } from '../../support/memory-output.ts';

const POSITION = { segment: 1, offset: 4711 };
const BATCH = batchOf(
  [
    { ...PLAIN_READ, timeNs: 100, offset: 8, valueLo: 0xffff_ffff },
    { ...PLAIN_READ, timeNs: 250, op: 1, offset: 12, valueLo: 1, mapId: 2 },
  ],
  POSITION,
);

/** A small capture with a batch in the middle and an event of few bytes on each side. */
const SMALL: readonly StreamItem[] = [
  { kind: 'mark', timeNs: 50, text: 'on' },
  BATCH,
  { kind: 'reset', timeNs: 300, device: 0 },
  { kind: 'unmap', timeNs: 400, mapId: 1 },
];

const plainItems = (items: readonly StreamItem[]): unknown[] =>
  items.map((item) => (isBatch(item) ? plain(item) : item));

type Item = Awaited<ReturnType<typeof readCapture>>['items'][number];

const isCaptureDamage = (item: Item | undefined): item is DamageEvent =>
  item !== undefined &&
  'kind' in item &&
  item.kind === 'damage' &&
  item.reason.startsWith('capture: ');

/** A frame with a right checksum around any payload. */
function frameOf(payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  bytes.set(payload, FRAME_HEADER_BYTES);
  sealFrame(bytes, 0, payload.length);
  return bytes;
}

describe('a capture', () => {
  let file: Buffer;
  beforeAll(async () => {
    file = await captureOf(SMALL);
  });

  it.each(Object.entries(EVENTS))('keeps a %s event as it is', async (_kind, event) => {
    const { header, items } = await readCapture(cutAt(await captureOf([event])));
    expect(header).toEqual(HEADER);
    expect(items).toEqual([event]);
    expect(JSON.stringify(items)).toBe(JSON.stringify([event]));
  });

  it.each([
    { source: 'mmiotrace', clock: 'kernel', textBaseSec: 1234.5 } as const,
    { source: 'qemu-log', clock: 'poll', argv: [], qemuVersion: '' } as const,
    { source: 'mmiotrace', clock: 'none', startSec: 0, startNs: 0, tool: '' } as const,
  ])('keeps its header: %j', async (changes) => {
    const header = { ...HEADER, ...changes };
    expect((await readCapture(cutAt(await captureOf([], header)))).header).toEqual(header);
  });

  it('keeps batches and events in their order', async () => {
    expect((await readCapture(cutAt(file))).items).toEqual(plainItems(SMALL));
  });

  it('reads the same at every split of the file', async () => {
    for (let split = 0; split <= file.length; split++) {
      expect((await readCapture(cutAt(file, split))).items).toEqual(plainItems(SMALL));
    }
  });

  it('reads the same in chunks of every size', async () => {
    for (const size of [1, 2, 3, 7, 8, 64, 100]) {
      const places = Array.from({ length: Math.floor(file.length / size) }, (_, i) => i * size);
      expect((await readCapture(cutAt(file, ...places))).items).toEqual(plainItems(SMALL));
    }
  });

  it('keeps any text, and what has no UTF-8 as the replacement character', async () => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }));
    await fc.assert(
      fc.asyncProperty(text, async (words) => {
        const event = { kind: 'mark', timeNs: 0, text: words } as const;
        const { items } = await readCapture(cutAt(await captureOf([event])));
        expect(items).toEqual([{ ...event, text: Buffer.from(words).toString() }]);
      }),
    );
    const { items } = await readCapture(
      cutAt(await captureOf([{ kind: 'line', timeNs: 0, text: 'a\ud800b' }])),
    );
    expect(items).toEqual([{ kind: 'line', timeNs: 0, text: 'a\ufffdb' }]);
  });

  it('reuses its batch from item to item', async () => {
    const recording = await openCapture(cutAt(await captureOf([BATCH, BATCH])));
    const seen = new Set();
    for await (const item of recording.items()) seen.add(item);
    expect(seen.size).toBe(1);
  });

  it('is what the generated code decodes, frame by frame', () => {
    const offsets = frameOffsets(file);
    const bodies = offsets.slice(0, -1).map((offset, index) => {
      const frame = v1.Frame.decode(file.subarray(offset + 8, offsets[index + 1]));
      return frame.body;
    });
    expect(bodies).toEqual(['header', 'mark', 'accessBatch', 'reset', 'unmap']);
  });

  it('keeps a batch that has no accesses and tells how far the source was read', async () => {
    const { items } = await readCapture(
      cutAt(await captureOf([batchOf([]), batchOf([], POSITION)])),
    );
    expect(items).toEqual([{ rows: [], position: POSITION }]);
  });

  it('can be read only once', async () => {
    const recording = await openCapture(cutAt(file));
    recording.items();
    expect(() => recording.items()).toThrow(expect.objectContaining({ code: 'usage' }));
  });
});

/** What is read of a frame with this payload between two good ones, which are not touched by it. */
const inTheMiddle = async (payload: Uint8Array): Promise<unknown[]> => {
  const file = await captureOf(SMALL);
  const at = frameOffsets(file)[2] ?? 0;
  const parts = [file.subarray(0, at), frameOf(payload), file.subarray(at)];
  const { items } = await readCapture(cutAt(Buffer.concat(parts)));
  const [before, damage, ...after] = items;
  expect([before, ...after]).toEqual(plainItems(SMALL));
  expect(damage).toMatchObject({ position: { segment: 0, offset: at }, timeNs: 50 });
  expect(isCaptureDamage(damage)).toBe(true);
  return [damage];
};
const NO_BARS = Array.from({ length: 7 }, () => ({}));
/** A payload with one field, of a tag of three bytes, that is so long. */
const big3 = (a: number, b: number, c: number, bytes: number): Buffer => {
  const one = big(0, bytes);
  return Buffer.concat([Buffer.of(a, b, c), one.subarray(1)]);
};
/** A payload with one field of so many bytes. */
const big = (tag: number, bytes: number): Buffer => {
  const payload = Buffer.alloc(bytes + 5);
  const length = [0, 7, 14].map((shift) => ((bytes >> shift) & 127) | 128);
  payload.set([tag, ...length, bytes >> 21]);
  return payload;
};

const { Source, Clock } = v1.RecordingHeader;

describe('a damaged capture', () => {
  let file: Buffer;
  let offsets: number[];
  beforeAll(async () => {
    file = await captureOf(SMALL);
    offsets = frameOffsets(file);
  });
  const flip = (place: number, bit: number): Buffer => {
    const copy = Buffer.from(file);
    copy[place]! ^= 1 << bit;
    return copy;
  };
  /** How many items lie wholly before `place`. */
  const itemsBefore = (place: number): number =>
    offsets.filter((offset) => offset <= place).length - 2;

  it('cut or altered before its first item is refused', async () => {
    for (let place = 0; place < (offsets[1] ?? 0); place++) {
      const cut = readCapture(cutAt(file.subarray(0, place)));
      await expect(cut, `cut at ${place}`).rejects.toMatchObject({ code: 'damaged' });
      for (let bit = 0; bit < 8; bit++) {
        const altered = readCapture(cutAt(flip(place, bit)));
        await expect(altered, `bit ${bit} of ${place}`).rejects.toMatchObject({ code: 'damaged' });
      }
    }
  });

  it('cut at any byte gives all that came before, and says where it was cut', async () => {
    for (let cut = offsets[1] ?? 0; cut <= file.length; cut++) {
      const count = itemsBefore(cut);
      const offset = offsets[count + 1] ?? -1;
      const expected = plainItems(SMALL).slice(0, count);
      if (cut > offset) {
        expected.push({
          kind: 'damage',
          timeNs: [0, 50, 250, 300, 400][count],
          position: { segment: 0, offset },
          reason:
            `capture: cut off in the middle of a frame; ` +
            `the last ${cut - offset} bytes are dropped`,
          evidence: escapeBytes(file.subarray(offset, Math.min(cut, offset + 50)), 200),
        });
      }
      const { items } = await readCapture(cutAt(file.subarray(0, cut)));
      expect(items, `cut at ${cut}`).toEqual(expected);
    }
  });

  it('with any one bit flipped never says anything wrong, and says where it is damaged', async () => {
    const whole = plainItems(SMALL);
    const firstItem = offsets[1] ?? 0;
    let recovered = 0;
    for (let place = firstItem; place < file.length; place++) {
      for (let bit = 0; bit < 8; bit++) {
        const { items } = await readCapture(cutAt(flip(place, bit)));
        const hit = itemsBefore(place);
        expect(items.slice(0, hit), `bit ${bit} of ${place}`).toEqual(whole.slice(0, hit));
        const damage = items[hit];
        if (!isCaptureDamage(damage)) throw new Error(`bit ${bit} of ${place}: no damage reported`);
        expect(damage.position, `bit ${bit} of ${place}`).toEqual({
          segment: 0,
          offset: offsets[hit + 1],
        });
        const after = items.slice(hit + 1);
        expect(after.length, `bit ${bit} of ${place}`).toBeLessThan(whole.length - hit);
        expect(after, `bit ${bit} of ${place}`).toEqual(whole.slice(whole.length - after.length));
        if (after.length > 0) recovered++;
      }
    }
    // All but the last frame, except for their lengths, which are beyond help.
    const frames = SMALL.length - 1;
    const beyondHelp = 4 * frames;
    expect(recovered).toBe(8 * ((offsets[SMALL.length] ?? 0) - firstItem - beyondHelp));
  });

  it('with any bytes in the place of others ends in data, damage, or a refusal', async () => {
    const edit = fc.record({
      at: fc.nat(file.length - 1),
      bytes: fc.uint8Array({ maxLength: 40 }),
    });
    const whole = plainItems(SMALL).map((item) => JSON.stringify(item));
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { maxLength: 3 }), async (edits) => {
        const copy = Buffer.from(file);
        for (const { at, bytes } of edits) copy.set(bytes.subarray(0, copy.length - at), at);
        const items = await readCapture(cutAt(copy)).then(
          (read) => read.items,
          (error: unknown) => {
            if (error instanceof MmioError && error.code === 'damaged') return undefined;
            throw error;
          },
        );
        if (items === undefined) return;
        const data = items.filter((item) => !isCaptureDamage(item)).map((i) => JSON.stringify(i));
        const missing = data.length < whole.length;
        expect({
          invented: data.filter((item) => !whole.includes(item)),
          reported: items.some(isCaptureDamage),
        }).toEqual({ invented: [], reported: missing });
      }),
      { numRuns: 500 },
    );
  });

  it('of which the header is not the first frame is refused', async () => {
    const headless = Buffer.concat([file.subarray(0, 12), file.subarray(offsets[1])]);
    await expect(readCapture(cutAt(headless))).rejects.toMatchObject({ code: 'damaged' });
  });
});

describe('a frame of a kind that a newer version writes', () => {
  it.each([
    ['small', Uint8Array.of(0xfa, 0xff, 0x7f, 0)],
    ['of megabytes', big3(0xfa, 0xff, 0x7f, 3 << 20)],
  ])('(%s) is passed over and said, and is no damage', async (_size, payload) => {
    const file = await captureOf(SMALL);
    const at = frameOffsets(file)[2] ?? 0;
    const parts = [file.subarray(0, at), frameOf(payload), frameOf(payload), file.subarray(at)];
    const recording = await openCapture(cutAt(Buffer.concat(parts)));
    const items = [];
    for await (const item of recording.items()) items.push('kind' in item ? item : plain(item));
    const [before, notice, ...after] = items;
    expect([before, ...after]).toEqual(plainItems(SMALL));
    expect(notice).toMatchObject({ kind: 'notice', text: expect.stringContaining('field 262143') });
    expect([...(recording.unknownFrames ?? [])]).toEqual([[262143, 2]]);
  });
});

describe('a frame that is whole but means nothing', () => {
  it.each<[string, Uint8Array, string]>([
    ['a message of the bridge', Uint8Array.of(0x82, 1, 0), 'bridge'],
    [
      'a device of a number that none has',
      v1.Frame.encode({ device: { device: { id: 65536, bars: NO_BARS } } }).finish(),
      'device 65536',
    ],
    [
      'a region of a number that none has',
      v1.Frame.encode({ region: { region: { id: 65536, kind: 1 } } }).finish(),
      'region 65536',
    ],
    ['no message', Uint8Array.of(8, 1), 'other than one message'],
    ['two messages', Uint8Array.of(0x3a, 0, 0x3a, 0), 'other than one message'],
    ['a message longer than the frame', Uint8Array.of(0x3a, 9, 0), 'other than one message'],
    ['a tag without end', new Uint8Array(20).fill(0xff), 'other than one message'],
    ['a message with garbage in it', Uint8Array.of(0x3a, 3, 0xff, 0xff, 0xff), 'protobuf'],
    ['text that is not UTF-8', Uint8Array.of(0x3a, 3, 0x12, 1, 0xff), 'protobuf'],
    ['an event of a megabyte and more', big(0x62, (1 << 20) + 1), 'an event of 1048582 bytes'],
    ['a device that is not there', v1.Frame.encode({ device: {} }).finish(), 'not there'],
    ['a device without BARs', v1.Frame.encode({ device: { device: {} } }).finish(), '0 BAR slots'],
    ['a time that is no number', v1.Frame.encode({ mark: { timeNs: NaN } }).finish(), 'NaN'],
    ['an enum of no value', v1.Frame.encode({ interrupt: {} }).finish(), 'interrupt type'],
    ['columns that disagree', v1.Frame.encode({ accessBatch: { count: 1 } }).finish(), 'column'],
    [
      'a second header',
      v1.Frame.encode({
        header: { source: Source.SOURCE_QEMU_LOG, clock: Clock.CLOCK_QEMU },
      }).finish(),
      'second',
    ],
  ])('(%s) is reported and stepped over', async (_what, payload, reason) => {
    expect(await inTheMiddle(payload)).toEqual([
      expect.objectContaining({ reason: expect.stringContaining(reason) }),
    ]);
  });
});

describe('the capture sink', () => {
  const many = Array.from({ length: 400 }, (_, n): StreamItem => {
    if (n % 3 === 0) return { kind: 'mark', timeNs: n, text: `mark ${n}` };
    return batchOf(
      Array.from({ length: 700 }, (_row, i) => ({
        ...PLAIN_READ,
        timeNs: n * 700 + i,
        valueLo: i,
      })),
    );
  });

  it('writes the same to a slow output as to a fast one, and makes the caller wait', async () => {
    const expected = await captureOf(many);
    const output = new MemoryOutput(2);
    const sink = new CaptureSink(output);
    await sink.begin(HEADER);
    let waits = 0;
    for (const item of many) {
      const behind = sink.write(item);
      if (behind !== undefined) waits++;
      await behind;
    }
    expect(await sink.flush()).toBe(expected.length);
    await sink.end();
    expect(output.closed).toBe(true);
    expect(output.bytes().equals(expected)).toBe(true);
    expect(waits).toBeGreaterThan(0);
    // Under load frames share writes, and no more waits than was said to.
    expect(output.chunks.length).toBeLessThan(10);
    expect(Math.max(...output.chunks.map((chunk) => chunk.length))).toBeLessThan(1.1 * (1 << 20));
  });

  it('keeps nothing back while the output is idle', async () => {
    const output = new MemoryOutput();
    const sink = new CaptureSink(output);
    await sink.begin(HEADER);
    await new Promise(setImmediate);
    const before = output.bytes().length;
    expect(sink.write(EVENTS.mark)).toBeUndefined();
    await new Promise(setImmediate);
    expect(output.bytes().length).toBeGreaterThan(before);
  });

  it('goes on after a cut with nothing but the frames', async () => {
    const whole = await captureOf([EVENTS.mark, BATCH]);
    const output = new MemoryOutput();
    const sink = new CaptureSink(output);
    sink.resume();
    await sink.write(BATCH);
    await sink.end();
    const first = await captureOf([EVENTS.mark]);
    expect(Buffer.concat([first, output.bytes()]).equals(whole)).toBe(true);
  });

  it('passes on what the output fails with, in the next call and in all after it', async () => {
    let closed = false;
    const full: ByteOutput = {
      write: () => Promise.reject(new Error('ENOSPC')),
      flush: () => Promise.resolve(0),
      sync: () => Promise.resolve(),
      close: async () => {
        closed = true;
      },
    };
    const sink = new CaptureSink(full);
    await sink.begin(HEADER);
    await new Promise(setImmediate);
    expect(() => sink.write(EVENTS.mark)).toThrow('ENOSPC');
    await expect(sink.flush()).rejects.toThrow('ENOSPC');
    await expect(sink.end()).rejects.toThrow('ENOSPC');
    expect(closed).toBe(true);
  });

  it('refuses an event that no reader would take', async () => {
    const sink = new CaptureSink(new MemoryOutput());
    await sink.begin(HEADER);
    const text = 'x'.repeat(1 << 20);
    expect(() => sink.write({ kind: 'line', timeNs: 0, text })).toThrow(
      expect.objectContaining({ code: 'usage' }),
    );
  });

  it('begins a file with the magic, the version, and the header', async () => {
    const file = await captureOf([]);
    expect(file.subarray(0, FILE_HEADER_BYTES).toString('hex')).toBe('894d494f0d0a1a0a01000000');
    expect(frameOffsets(file)).toHaveLength(2);
  });
});
