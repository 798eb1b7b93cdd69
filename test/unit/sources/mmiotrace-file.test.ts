import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { NO_CPU, Op } from '../../../src/model/access-batch.ts';
import type { RecordingEvent } from '../../../src/model/events.ts';
import { isBatch, type Recording } from '../../../src/model/stream.ts';
import { MmiotraceSink } from '../../../src/sinks/mmiotrace.ts';
import { openMmiotrace } from '../../../src/sources/mmiotrace-file.ts';
import { type PlainAccess, plainAccess } from '../../support/plain-access-line.ts';
import { rewritten } from '../../support/sink-run.ts';

/*
 * Printed with the kernel's own format strings (mmio_print_pcidev, _rw, _map and _mark of Linux
 * kernel/trace/trace_mmiotrace.c), filled in as a guest with an e1000e, a graphics card and legacy
 * IDE ports would: uptime of 47 days, 64-bit BARs, a lost buffer, an iounmap of nothing known.
 */
const KERNEL_LOG = readFileSync(new URL('../../golden/kernel.mmiotrace', import.meta.url));

async function* chunksOf(bytes: Uint8Array, ...ends: number[]): AsyncGenerator<Uint8Array> {
  let from = 0;
  for (const end of [...ends.toSorted((a, b) => a - b), bytes.length]) {
    yield bytes.subarray(from, end);
    from = end;
  }
}

function open(text: string | Uint8Array, ...cuts: number[]): Promise<Recording> {
  const bytes = typeof text === 'string' ? Buffer.from(text, 'latin1') : text;
  return openMmiotrace(chunksOf(bytes, ...cuts));
}

/** An access as one object, so that rows and events make one list. */
interface Row {
  readonly kind: 'access';
  readonly op: number;
  readonly width: number;
  readonly timeNs: number;
  readonly region: number;
  readonly mapId: number;
  readonly offset: number;
  readonly value: bigint;
  readonly pc: bigint;
  readonly cpu: number;
}

/** The stream with batches opened up; `end` left out. */
async function itemsOf(recording: Recording): Promise<(Row | RecordingEvent)[]> {
  const items: (Row | RecordingEvent)[] = [];
  for await (const item of recording.items()) {
    if (!isBatch(item)) {
      if (item.kind !== 'end') items.push(item);
      continue;
    }
    for (let row = 0; row < item.length; row++) {
      const word = (lo: Uint32Array, hi: Uint32Array): bigint =>
        (BigInt(hi[row] ?? 0) << 32n) | BigInt(lo[row] ?? 0);
      items.push({
        kind: 'access',
        op: item.op[row] ?? -1,
        width: item.width[row] ?? -1,
        timeNs: item.timeNs[row] ?? -1,
        region: item.region[row] ?? -1,
        mapId: item.mapId[row] ?? -1,
        offset: item.offset[row] ?? -1,
        value: word(item.valueLo, item.valueHi),
        pc: word(item.pcLo, item.pcHi),
        cpu: item.cpu[row] ?? 0,
      });
    }
  }
  return items;
}

async function read(
  text: string | Uint8Array,
  ...cuts: number[]
): Promise<(Row | RecordingEvent)[]> {
  return itemsOf(await open(text, ...cuts));
}

async function again(text: string | Uint8Array): Promise<string> {
  return rewritten((output) => new MmiotraceSink(output), await open(text));
}

const HEAD = 'VERSION 20070824\n';
const NIC =
  'PCIDEV 0010 808610d3 16 febc0000 feba0000 c0a1 38000000000c 0 0 feb40000 20000 20000 20 4000 0 0 40000 e1000e\n';
const MAP = 'MAP 100.000000 1 0xfebc0000 0xffffc90000a40000 0x20000 0x0 0\n';
const READ = 'R 4 100.000001 1 0xfebc0008 0x80080783 0x0 0\n';

describe('a log of the kernel', () => {
  it('comes out of source and sink as it went in', async () => {
    expect(await again(KERNEL_LOG)).toBe(KERNEL_LOG.toString('latin1'));
  });

  it('is the same wherever its bytes are parted', async () => {
    const text = Buffer.concat([
      Buffer.from(`${HEAD}${NIC}MARK 100.5 bad\n${MAP}${READ}\nCPU 1 is down\r\n`),
      Buffer.from([0x52, 0x20, 0x00, 0x0a]),
      Buffer.from('UNMAP 101.000000 1 0x0 0\nW 1 102.000000 1 0xfebc0000 0x7 0x0 0'),
    ]);
    const whole = await read(text);
    for (let cut = 0; cut <= text.length; cut++) expect(await read(text, cut)).toEqual(whole);
    const everyByte = Array.from(text, (_, i) => i);
    expect(await read(text, ...everyByte)).toEqual(whole);
  });

  it('keeps its times exact at any uptime: its first second is session time 0', async () => {
    const late = 'R 4 4294967294.999999 1 0x0 0x0 0x0 0\nR 4 4294967295.000001 1 0x0 0x0 0x0 0\n';
    const recording = await open(HEAD + late);
    expect(recording.header.textBaseSec).toBe(4_294_967_294);
    const times = (await itemsOf(recording)).map((item) => item.timeNs);
    expect(times).toEqual([0, 999_999_000, 1_000_001_000]);
    expect(await again(HEAD + late)).toBe(HEAD + late);
  });

  it('says in the end what it held', async () => {
    const loss = 'MARK 0.000000 Lost 3 events.\n';
    const text = `${HEAD}${MAP}${READ}${READ.replace('R', 'W')}${loss}W\n`;
    let end: RecordingEvent | undefined;
    for await (const item of (await open(text)).items()) if (!isBatch(item)) end = item;
    expect(end).toEqual({
      kind: 'end',
      timeNs: 1000,
      complete: false,
      counters: { reads: 1, writes: 1, lost: 3, lossEvents: 1, damagedLines: 1, otherLines: {} },
    });
  });
});

describe('PCIDEV', () => {
  it('is a device, and the same device when it comes again', async () => {
    const moved = NIC.replace('febc0000', 'c0000000').replace('e1000e', '');
    const other = NIC.replace('0010', '0110');
    const devices = (await read(HEAD + NIC + other + moved)).map((item) =>
      item.kind === 'device' ? item.device : undefined,
    );
    expect(devices).toMatchObject([
      { id: 0, name: '00:02.0', type: '', vendorId: 0x8086, deviceId: 0x10d3, driver: 'e1000e' },
      { id: 1, name: '01:02.0' },
      { id: 0, name: '00:02.0', driver: '' },
    ]);
    expect(devices[2]?.bars[0]).toEqual({ start: 0xc0000000, flags: 0, sizeBytes: 0x20000 });
    expect(devices[0]?.bars[2]).toEqual({ start: 0xc0a0, flags: 1, sizeBytes: 0x20 });
    expect(devices[0]?.bars[3]).toEqual({ start: 0x380000000000, flags: 12, sizeBytes: 0x4000 });
  });
});

describe('MAP', () => {
  it('of a part of a BAR is that BAR`s region, which is told of once', async () => {
    const text = `${HEAD}${NIC}MAP 1.000000 1 0xfebc1000 0x0 0x50 0x0 0\nMAP 1.000000 2 0xfebc0000 0x0 0x20000 0x0 0\n`;
    expect((await read(`${text}R 4 1.000000 1 0xfebc1008 0x0 0x0 0\n`)).slice(1)).toMatchObject([
      {
        kind: 'region',
        region: { device: 0, kind: 'bar', bar: 0, name: 'BAR0', sizeBytes: 0x20000 },
      },
      { kind: 'map', mapping: { mapId: 1, region: 0, regionOffset: 0x1000, gpa: 0xfebc1000 } },
      { kind: 'map', mapping: { mapId: 2, region: 0, regionOffset: 0, lengthBytes: 0x20000 } },
      { kind: 'access', region: 0, mapId: 1, offset: 0x1008 },
    ]);
  });

  it('of the option ROM is the ROM', async () => {
    const items = await read(`${HEAD}${NIC}MAP 1.000000 1 0xfeb40000 0x0 0x1000 0x0 0\n`);
    expect(items[1]).toMatchObject({ region: { kind: 'rom', bar: 6, name: 'ROM' } });
  });

  it('holds for the accesses that follow it', async () => {
    const access = 'R 4 1.000000 1 0xfebc1008 0x0 0x0 0\n';
    const moved = 'MAP 1.000000 1 0xfebc1000 0x0 0x50 0x0 0\n';
    const items = await read(`${HEAD}${NIC}${access}${moved}${access}${MAP}${access}`);
    const rows = items.filter((item) => item.kind === 'access');
    expect(rows.map(({ region, offset }) => [region, offset])).toEqual([
      [0, 0xfebc1008],
      [1, 0x1008],
      [1, 0x1008],
    ]);
  });

  it('that lies in no BAR is a window', async () => {
    const items = await read(`${HEAD}${NIC}MAP 1.000000 1 0xfed00000 0xffffc9 0x400 0x0 0\n`);
    expect(items.slice(1)).toMatchObject([
      { region: { device: -1, kind: 'window', name: 'mem@0xfed00000+0x400', sizeBytes: 0x400 } },
      { mapping: { regionOffset: 0, gpa: 0xfed00000, virt: '0xffffc9' } },
    ]);
  });

  it.each([
    ['no MAP of its mapid', 'R 4 1.000000 9 0x1000 0x1 0x0 0\n', 9],
    ['mapid 0', 'R 4 1.000000 0 0x1000 0x1 0x0 0\n', 0],
    ['mapid -1', 'R 4 1.000000 -1 0x1000 0x1 0x0 0\n', 0xffff_ffff],
    ['an address beyond its MAP', `${MAP}R 4 1.000000 1 0x1000 0x1 0x0 0\n`, 1],
    ['an undecoded access', 'UNKNOWN 1.000000 9 0x1000 0f,01,f9 0x0 0\n', 9],
  ])('that is not there, %s: the offset is the address', async (_, text, mapId) => {
    const items = await read(HEAD + text);
    expect(items.slice(-2)).toMatchObject([
      { kind: 'region', region: { device: -1, kind: 'window', name: 'mem' } },
      { kind: 'access', offset: 0x1000, mapId },
    ]);
    expect(await again(HEAD + text)).toBe(HEAD + text);
  });
});

describe('other lines', () => {
  it('are kept: what tools and drivers printed in between', async () => {
    const noise = ['LSPCI 00:02.0 Ethernet', 'CPU 1 is unplugged', 'rw what?', 'Reading'];
    const items = await read(`${HEAD}${noise.join('\n')}\n\n${MAP}`);
    const lines = items.filter((item) => item.kind === 'line');
    expect(lines.map((item) => item.text)).toEqual(noise);
  });

  it('of losses are losses, with a time before everything else', async () => {
    const [before, , loss] = await read(
      `${HEAD}MARK 0.000000 Lost 5 events.\nMARK 77.000000 x\nMARK 0.000000 Lost 7 events.\n`,
    );
    const common = { kind: 'loss', timeNs: -77e9, durationNs: 0, reason: 'kernel' };
    expect(before).toEqual({ ...common, count: 5 });
    expect(loss).toEqual({ ...common, count: 7 });
  });

  it('may end in spaces and CR, and have upper-case digits', async () => {
    const text = `${HEAD}${NIC}${MAP}${READ}UNMAP 101.000000 1 0x0 0\n`;
    const odd = text.replaceAll('\n', '  \r\n').replaceAll('febc', 'FEBC');
    expect(await again(odd)).toBe(text);
  });
});

describe('damage', () => {
  it.each([
    ['R 4 100.000001 1 0xfebc0008 0x80080783 0x0', 'malformed R or W line'],
    ['R 3 100.000001 1 0xfebc0008 0x0 0x0 0', 'malformed R or W line'],
    ['R 4 100.00001 1 0xfebc0008 0x0 0x0 0', 'malformed R or W line'],
    ['R 4  100.000001 1 0xfebc0008 0x0 0x0 0', 'malformed R or W line'],
    ['W 4 100.000001 1 0xfebc0008 80 0x0 0', 'malformed R or W line'],
    ['W 4 100.000001 1 0xfebc0008 0x100000000 0x0 0', 'value does not fit into 4 bytes'],
    ['W 1 100.000001 1 0xfebc0008 0x100 0x0 0', 'value does not fit into 1 bytes'],
    ['W 1 100.000001 1 0x20000000000000 0x1 0x0 0', 'physical address is beyond 2^53'],
    ['W 1 4294967296.000001 1 0x0 0x1 0x0 0', 'time is beyond 32 bits of seconds'],
    ['W 1 1.000001 2147483648 0x0 0x1 0x0 0', 'mapid is beyond 32 bits'],
    ['MAP 100.000000 1 0xfebc0000', 'malformed MAP line'],
    ['UNMAP', 'malformed UNMAP line'],
    ['UNKNOWN 1.000000 1 0x0 0f 0x0 0', 'malformed UNKNOWN line'],
    ['MARK x', 'malformed MARK line'],
    ['PCIDEV 0010 808610d3 16 febc0000', 'malformed PCIDEV line'],
    ['VERSION 20990101', 'version is not 20070824'],
    ['\u0000\u0001', 'not text'],
  ])('%j is stepped over, and its place told', async (line, reason) => {
    const items = await read(`${HEAD}${MAP}${READ}${line}\n${READ}`);
    const offset = HEAD.length + MAP.length + READ.length;
    expect(items.map((item) => item.kind)).toEqual(['region', 'map', 'access', 'damage', 'access']);
    expect(items[3]).toEqual({
      kind: 'damage',
      timeNs: 1000,
      position: { segment: 0, offset },
      reason,
      evidence: line === '\u0000\u0001' ? '\\x00\\x01' : line,
    });
  });

  it('of a line without end is one, of bounded memory, up to the next LF', async () => {
    const piece = new Uint8Array(256 * 1024).fill(0x41);
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield Buffer.from(`${HEAD}${READ}`);
      for (let i = 0; i < 400; i++) yield piece;
      yield Buffer.from(`\n${READ}`);
    }
    const before = process.memoryUsage().rss;
    const items = await itemsOf(await openMmiotrace(endless()));
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024);
    expect(items.map((item) => item.kind)).toEqual(['region', 'access', 'damage', 'access']);
    expect(items[2]).toMatchObject({
      position: { segment: 0, offset: HEAD.length + READ.length },
      reason: 'line is longer than 65536 bytes',
      evidence: 'A'.repeat(200),
    });
  });

  it('begins at 65537 bytes, parted or not', async () => {
    for (const [length, kind] of [
      [65_536, 'line'],
      [65_537, 'damage'],
    ] as const) {
      const text = `${HEAD}${'x'.repeat(length)}\n${'y'.repeat(length)}\n${READ}`;
      const whole = await read(text);
      expect(whole.map((item) => item.kind)).toEqual([kind, kind, 'region', 'access']);
      expect(await read(text, 5, 60, 40_000, 100_000)).toEqual(whole);
      expect(await read(text, HEAD.length + length, HEAD.length + length + 1)).toEqual(whole);
    }
  });
});

describe('a file that is something else', () => {
  it.each([
    ['', 'an empty file'],
    ['\u001f\u008b\u0008', 'gzip-compressed data'],
    ['\u007fELF', 'an ELF program'],
    ['{"type":"header"}\n', 'JSON'],
    ['vfio_region_write  (0000:01:00.0:region0+0x8, 0x1, 4)\n', 'a QEMU trace log'],
    ['# tracer: nop\n', 'an ftrace log of another tracer'],
    ['a\u0000b', 'binary data'],
    ['hello\nworld\n', 'text of another kind'],
  ])('%j is refused, and said to look like %s', async (text, name) => {
    const opened = open(text);
    await expect(opened).rejects.toBeInstanceOf(MmioError);
    await expect(opened).rejects.toMatchObject({
      code: 'damaged',
      message: `not mmiotrace text: this looks like ${name}`,
    });
  });

  it('is refused without being read to its end, and is closed', async () => {
    let closed = false;
    async function* noise(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.from('noise\n'.repeat(1000));
      } finally {
        closed = true;
      }
    }
    await expect(openMmiotrace(noise())).rejects.toBeInstanceOf(MmioError);
    expect(closed).toBe(true);
  });
});

const hexText = (max: bigint): fc.Arbitrary<string> =>
  fc.bigInt({ min: 0n, max }).map((value) => `0x${value.toString(16)}`);
const time = fc
  .tuple(fc.oneof(fc.nat(), fc.constantFrom(0, 4_294_967_295)), fc.nat(999_999))
  .map(([sec, usec]) => `${sec}.${String(usec).padStart(6, '0')}`);
const address = hexText(2n ** 53n - 1n);
const word = hexText(2n ** 64n - 1n);
const mapId = fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: -(2 ** 31), max: -1 }));
const sized = fc
  .constantFrom(1, 2, 4, 8)
  .chain((width) => fc.tuple(fc.constant(width), hexText(2n ** BigInt(width * 8) - 1n)));
const accessLine = fc
  .tuple(fc.constantFrom('R', 'W'), sized, time, mapId, address, word)
  .map(
    ([op, [width, value], at, id, phys, pc]) =>
      `${op} ${width} ${at} ${id} ${phys} ${value} ${pc} 0`,
  );
const said = fc.stringMatching(/^[ -~]{1,80}$/);
const validLine = fc.oneof(
  { weight: 8, arbitrary: accessLine },
  fc.tuple(time, mapId, address, word, address).map((f) => `MAP ${f.join(' ')} 0x0 0`),
  fc.tuple(time, mapId).map((f) => `UNMAP ${f.join(' ')} 0x0 0`),
  fc
    .tuple(time, mapId, address, word)
    .map(([t, id, phys, pc]) => `UNKNOWN ${t} ${id} ${phys} 0f,01,f9 ${pc} 0`),
  fc.tuple(time, said).map((f) => `MARK ${f.join(' ')}`),
  fc.nat().map((count) => `MARK 0.000000 Lost ${count} events.`),
  fc.constantFrom(
    NIC.trimEnd(),
    NIC.replace('febc0000', '1000').replace('e1000e', '').slice(0, -1),
  ),
  fc.constantFrom('LSPCI 00:02.0 Ethernet', 'rw what?'),
);
const validLog = fc
  .array(validLine, { minLength: 1 })
  .map((lines) => `${HEAD}${lines.join('\n')}\n`);

describe('any log', () => {
  it('that is valid comes out as it went in', async () => {
    await fc.assert(
      fc.asyncProperty(validLog, async (log) => {
        expect(await again(log)).toBe(log);
      }),
      { numRuns: 400 },
    );
  });

  it('that is damaged in any way is read to its end, the same in any parts', async () => {
    const flip = fc.tuple(fc.nat(), fc.nat(7));
    const damaged = fc
      .tuple(validLog, fc.array(flip, { maxLength: 8 }), fc.nat(), fc.string({ unit: 'binary' }))
      .map(([log, flips, cut, garbage]) => {
        const bytes = Buffer.from(log + garbage + READ);
        // The first line stays: a file without any good line is another matter.
        const span = bytes.length - HEAD.length;
        for (const [at, bit] of flips) {
          const index = HEAD.length + (at % span);
          bytes.writeUInt8((bytes[index] ?? 0) ^ (1 << bit), index);
        }
        return bytes.subarray(0, HEAD.length + (cut % (span + 1)));
      });
    await fc.assert(
      fc.asyncProperty(damaged, fc.array(fc.nat(2000)), async (bytes, cuts) => {
        const whole = await read(bytes);
        const damages = whole.filter((item) => item.kind === 'damage');
        for (const { position, evidence } of damages) {
          expect(bytes[position.offset - 1]).toBe(0x0a);
          const end = bytes.indexOf(0x0a, position.offset);
          const line = bytes.subarray(position.offset, end < 0 ? undefined : end);
          expect(evidence).toBe(escaped(line.toString('latin1')).slice(0, 200));
        }
        expect(await read(bytes, ...cuts.filter((cut) => cut < bytes.length))).toEqual(whole);
      }),
      { numRuns: 400 },
    );
  });

  it('and any bytes at all throw nothing but MmioError', async () => {
    const chunk = fc.oneof(
      fc.uint8Array(),
      fc.constantFrom(HEAD, READ, 'R ', '\n').map((text) => Buffer.from(text)),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(chunk), async (chunks) => {
        const error: unknown = await read(Buffer.concat(chunks)).then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        expect(error === undefined || error instanceof MmioError).toBe(true);
      }),
    );
  });
});

function escaped(text: string): string {
  return text.replaceAll(
    /[^\x20-\x7e]|\\/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** What the reader is to make of an access, if that is in the catch-all region, and time 0 is 0. */
function rowOf(plain: PlainAccess | undefined): Row | undefined {
  return (
    plain && {
      kind: 'access',
      op: plain.op === 'R' ? Op.read : Op.write,
      width: plain.width,
      timeNs: Number(plain.timeUs * 1000n),
      region: 0,
      mapId: Number(BigInt.asUintN(32, plain.mapId)),
      offset: Number(plain.phys),
      value: plain.value,
      pc: plain.pc,
      cpu: NO_CPU,
    }
  );
}

describe('the fast way for accesses', () => {
  /** Anywhere in a good line one byte is put, taken or changed. */
  const bent = fc
    .tuple(
      accessLine,
      fc.nat(),
      fc.oneof(fc.constant('00000000'), fc.stringMatching(/^[ 0x9fFg.\-\r]$/)),
      fc.nat(2),
    )
    .map(([line, at, put, take]) => {
      const index = at % (line.length + 1);
      return line.slice(0, index) + put + line.slice(index + take);
    });

  it('takes what its plain twin takes, and makes the same of it', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(accessLine, bent), { minLength: 1 }), async (lines) => {
        const recording = await open(`${HEAD}MARK 0.000000 base\n${lines.join('\n')}\n`);
        const items = (await itemsOf(recording)).filter(
          (item) => item.kind !== 'region' && item.kind !== 'mark',
        );
        expect(items).toHaveLength(lines.length);
        const expected = lines.map((line) => rowOf(plainAccess(line)));
        const damaged = expect.objectContaining({ kind: 'damage' });
        const other = expect.objectContaining({ kind: 'line' });
        // A line whose first letter is bent may be no access line at all.
        const notAccess = (item: Row | RecordingEvent | undefined): unknown =>
          item?.kind === 'line' ? other : damaged;
        expect(items).toEqual(expected.map((row, index) => row ?? notAccess(items[index])));
      }),
      { numRuns: 500 },
    );
  });
});
