import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AccessBatch } from '../../../src/model/access-batch.ts';
import { type BatchMessage, ColumnDecoder } from '../../../src/wire/column-decoder.ts';
import { ColumnEncoder } from '../../../src/wire/column-encoder.ts';
import { MAX_PAYLOAD_BYTES } from '../../../src/wire/frame.ts';
import { v1 } from '../../../src/wire/generated/mmiobridge.ts';
import { type Access, batchOf, COLUMNS, plain, PLAIN_READ } from '../../support/captures.ts';

/** The payloads that a batch becomes. */
function encode(batch: AccessBatch): Uint8Array[] {
  const encoder = new ColumnEncoder();
  const payloads = [];
  for (let row = 0; row < batch.length;) {
    row = encoder.take(batch, row);
    const payload = new Uint8Array(encoder.byteLength + 2).fill(0xaa);
    encoder.writeTo(payload, 1);
    expect([payload[0], payload.at(-1)]).toEqual([0xaa, 0xaa]);
    payloads.push(payload.slice(1, -1));
  }
  return payloads;
}

/** The messages that a batch becomes, by the generated code. */
function messages(batch: AccessBatch): BatchMessage[] {
  return encode(batch).map((payload) => {
    const { accessBatch } = v1.Frame.decode(payload);
    if (!accessBatch) throw new Error('not a batch');
    return accessBatch;
  });
}

function message(...rows: readonly Partial<Access>[]): BatchMessage {
  const [only, ...others] = messages(batchOf(rows.map((row) => ({ ...PLAIN_READ, ...row }))));
  if (only === undefined || others.length > 0) throw new Error('not one frame');
  return only;
}

const u32 = (...values: number[]): Uint8Array => new Uint8Array(new Uint32Array(values).buffer);
const u16 = (...values: number[]): Uint8Array => new Uint8Array(new Uint16Array(values).buffer);
const u8 = (...values: number[]): Uint8Array => Uint8Array.from(values);

const anyU32 = fc.oneof(fc.constant(0), fc.nat(255), fc.integer({ min: 0, max: 0xffff_ffff }));
const anyTime = fc.oneof(
  fc.nat(1000),
  fc.integer({ min: -5, max: 2 ** 34 }),
  fc.maxSafeInteger().map((time) => Math.floor(time / 4)),
);
const anyAccess: fc.Arbitrary<Access> = fc.record({
  timeNs: anyTime,
  op: fc.nat(2),
  space: fc.nat(2),
  width: fc.constantFrom(0, 1, 2, 4, 8, 16),
  region: fc.oneof(fc.nat(3), fc.nat(65535)),
  mapId: fc.oneof(fc.nat(3), anyU32),
  offset: fc.oneof(anyU32, fc.nat(Number.MAX_SAFE_INTEGER)),
  valueLo: anyU32,
  valueHi: fc.oneof(fc.constant(0), anyU32),
  cpu: fc.oneof(fc.constant(0), fc.integer({ min: -1, max: 32767 })),
  pcLo: fc.oneof(fc.constant(0), anyU32),
  pcHi: fc.oneof(fc.constant(0), anyU32),
});
/** A value is no wider than its access. */
function fitting(access: Access): Access {
  const { width, valueLo, valueHi } = access;
  const most = width === 0 ? 0xff_ffff : width >= 4 ? 0xffff_ffff : 2 ** (8 * width) - 1;
  return { ...access, valueLo: valueLo % (most + 1), valueHi: width >= 8 ? valueHi : 0 };
}
/** Rows of which a few columns may be the same all the way down, as in real batches. */
const anyRows = fc
  .tuple(fc.array(anyAccess, { minLength: 1, maxLength: 60 }), fc.subarray([...COLUMNS]))
  .map(([rows, constant]) => {
    const same = Object.fromEntries(constant.map((name) => [name, rows[0]?.[name]]));
    return rows.map((row) => fitting({ ...row, ...same }));
  });
const anyPosition = fc.option(
  fc.record({ segment: anyU32, offset: fc.nat(Number.MAX_SAFE_INTEGER) }),
  { nil: undefined },
);

describe('a batch', () => {
  it.each([
    [{ width: 1, valueLo: 0x100 }, 'a value of more than 1 bytes'],
    [{ width: 2, valueLo: 0x1_0000 }, 'a value of more than 2 bytes'],
    [{ width: 4, valueLo: 1, valueHi: 1 }, 'a value of more than 4 bytes'],
  ])('with a value that is wider than its access is refused: %j', (row, evidence) => {
    const decoder = new ColumnDecoder();
    expect(() => decoder.decode(message(row))).toThrow(
      expect.objectContaining({ code: 'damaged', evidence }),
    );
  });

  it('comes back as it was, whatever is in it', () => {
    const decoder = new ColumnDecoder();
    fc.assert(
      fc.property(anyRows, anyPosition, (rows, position) => {
        const parts = messages(batchOf(rows, position)).map((part) => plain(decoder.decode(part)));
        expect(parts.flatMap((part) => part.rows)).toEqual(rows);
        expect(parts.at(-1)?.position).toEqual(position);
        expect(parts.slice(0, -1).every((part) => part.position === undefined)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  it('has columns that can be read with the schema alone', () => {
    const batch = batchOf(
      [
        { ...PLAIN_READ, timeNs: 1500, offset: 0x10, valueLo: 0xdead_beef, cpu: 0, region: 2 },
        { ...PLAIN_READ, timeNs: 1000, op: 1, space: 1, width: 1, offset: 0x11, cpu: 3, mapId: 9 },
        { ...PLAIN_READ, timeNs: 1001, op: 2, space: 2, width: 0, offset: 2 ** 33 + 4, cpu: -1 },
        { ...PLAIN_READ, timeNs: 1002, width: 16, valueHi: 1, cpu: -1, pcLo: 5, pcHi: 6 },
      ],
      { segment: 2, offset: 2 ** 40 },
    );
    expect({ ...messages(batch)[0] }).toEqual({
      count: 4,
      baseTimeNs: 1000,
      timeDelta: u32(500, 0, 1, 2),
      kind: u8(0x30, 0x15, 0x0a, 0x50),
      targetRegion: u16(2, 0, 0),
      targetMapId: u32(1, 9, 1),
      target: u8(0, 1, 2, 2),
      offsetLow: u32(0x10, 0x11, 4, 0),
      offsetHigh: u32(0, 0, 2, 0),
      valueLow: u32(0xdead_beef, 0, 0, 0),
      valueHigh: u32(0, 0, 0, 1),
      cpuColumn: u8(0, 0, 3, 0, 255, 255, 255, 255),
      pcLow: u32(0, 0, 0, 5),
      pcHigh: u32(0, 0, 0, 6),
      position: expect.objectContaining({ segment: 2, offset: 2 ** 40 }),
    });
  });

  it('leaves out the columns that say nothing', () => {
    expect({ ...message({ cpu: 5 }, { cpu: 5 }) }).toEqual({
      count: 2,
      kind: u8(0x30, 0x30),
      targetRegion: u16(0),
      targetMapId: u32(1),
      offsetLow: u32(0, 0),
      valueLow: u32(0, 0),
      cpu: 5,
    });
  });

  it('takes at most 14 bytes an access in the common case', () => {
    const rows = Array.from({ length: 4096 }, (_, index) => ({
      ...PLAIN_READ,
      timeNs: 1e12 + index * 1000,
      region: index % 3,
      offset: (index * 4) % 65536,
      valueLo: index * 77777,
    }));
    const [payload] = encode(batchOf(rows, { segment: 1, offset: 1e9 }));
    expect(payload?.length).toBeLessThanOrEqual(4096 * 14 + 100);
  });

  it.each([
    ['where time spans more than a u32', { timeNs: 2 ** 32 }, [1, 1]],
    ['where time goes back further than a u32', { timeNs: -(2 ** 32) }, [1, 1]],
    ['not at the last distance that fits', { timeNs: 2 ** 32 - 1 }, [2]],
  ])('is cut %s', (_what, second, expected) => {
    const parts = messages(batchOf([PLAIN_READ, { ...PLAIN_READ, ...second }]));
    expect(parts.map((part) => part.count)).toEqual(expected);
  });

  it('is cut where a frame has no room for another target, or another access', () => {
    const targets = Array.from({ length: 300 }, (_, mapId) => ({ ...PLAIN_READ, mapId }));
    expect(messages(batchOf(targets)).map((part) => part.count)).toEqual([256, 44]);
    const long = new AccessBatch(70_000);
    long.length = 70_000;
    expect(messages(long).map((part) => part.count)).toEqual([65536, 4464]);
  });

  it('names each target once, however often and in whatever order it is met', () => {
    const targets = Array.from({ length: 1024 }, (_, n) => ({
      ...PLAIN_READ,
      region: (n * 7) % 16,
      mapId: ((n * 5) % 256) >> 4,
    }));
    const distinct = new Set(targets.map(({ region, mapId }) => `${region} ${mapId}`));
    const [only, ...others] = messages(batchOf(targets));
    expect(others).toEqual([]);
    expect(only?.targetRegion).toHaveLength(2 * distinct.size);
  });

  it.each([2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1])('keeps an offset of %d exact', (offset) => {
    const { rows } = plain(new ColumnDecoder().decode(message({ offset })));
    expect(rows[0]?.offset).toBe(offset);
  });

  it('with every column and as many rows as can be fits into a frame', () => {
    const batch = new AccessBatch(65536);
    batch.length = 65536;
    for (const name of COLUMNS) batch[name].fill(1);
    for (const name of COLUMNS) batch[name][0] = 2;
    batch.offset[1] = 2 ** 40;
    const [only, ...others] = encode(batch);
    expect(others).toEqual([]);
    expect(only?.length).toBeGreaterThan(65536 * 32);
    expect(only?.length).toBeLessThan(MAX_PAYLOAD_BYTES);
  });

  it.each([
    ['op', { op: 3 }],
    ['space', { space: 3 }],
    ['width', { width: 3 }],
  ])('with an impossible %s is not written', (_what, row) => {
    const batch = batchOf([PLAIN_READ, { ...PLAIN_READ, ...row }]);
    expect(() => encode(batch)).toThrow(expect.objectContaining({ code: 'damaged' }));
  });
});

describe('hostile columns', () => {
  const good = message({ timeNs: 5, cpu: 1 }, { timeNs: 6, mapId: 2, offset: 2 ** 32, cpu: 2 });
  const decode = (changes: BatchMessage): unknown =>
    new ColumnDecoder().decode({ ...good, ...changes });

  it('are told from good ones', () => {
    expect(() => decode({})).not.toThrow();
  });

  it.each<[string, BatchMessage]>([
    ['more rows than a frame may have', { count: 65537 }],
    ['an absurd number of rows', { count: 0xffff_ffff }],
    ['more rows than the columns', { count: 3 }],
    ['fewer rows than the columns', { count: 1 }],
    ['no rows but columns', { count: 0 }],
    ['time column too short', { timeDelta: u32(1) }],
    ['time column not of whole elements', { timeDelta: new Uint8Array(7) }],
    ['a time that is no number', { baseTimeNs: NaN }],
    ['a time without end', { baseTimeNs: Infinity }],
    ['half a nanosecond', { baseTimeNs: 0.5 }],
    ['a time too large to be exact', { baseTimeNs: 2 ** 53 }],
    ['a time that becomes too large', { baseTimeNs: 2 ** 53 - 1, timeDelta: u32(0, 1) }],
    ['no kinds', { kind: u8() }],
    ['an op that is none', { kind: u8(0x30, 0x33) }],
    ['a space that is none', { kind: u8(0x30, 0x3c) }],
    ['a width that is none', { kind: u8(0x30, 0x60) }],
    ['no targets', { targetRegion: u8(), targetMapId: u8() }],
    ['half a target', { targetRegion: new Uint8Array(3) }],
    ['fewer map ids than regions', { targetMapId: u32(1) }],
    ['too many targets', { targetRegion: u16(...Array(257).fill(0)) }],
    ['a target outside the dictionary', { target: u8(0, 2) }],
    ['target column too long', { target: u8(0, 1, 0) }],
    ['no offsets', { offsetLow: u8() }],
    ['high offsets too short', { offsetHigh: u32(1) }],
    ['an offset too large to be exact', { offsetHigh: u32(0, 2 ** 21) }],
    ['no values', { valueLow: u8() }],
    ['high values too long', { valueHigh: u32(1, 2, 3) }],
    ['vCPU column too short', { cpuColumn: u16(1) }],
    ['a vCPU below -1', { cpuColumn: u16(0, 0xfffe) }],
    ['the one vCPU below -1', { cpuColumn: u8(), cpu: -2 }],
    ['the one vCPU too large', { cpuColumn: u8(), cpu: 32768 }],
    ['low PCs too short', { pcLow: u32(1) }],
    ['high PCs too long', { pcHigh: u32(1, 2, 3) }],
    ['a position before the start', { position: { segment: 1, offset: -1 } }],
    ['a position that is no number', { position: { segment: 1, offset: NaN } }],
  ])('with %s are damage', (_what, changes) => {
    expect(() => decode(changes)).toThrow(
      expect.objectContaining({ name: 'MmioError', code: 'damaged' }),
    );
  });
});
