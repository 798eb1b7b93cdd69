import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AccessBatch, Op, Space } from '../../../src/model/access-batch.ts';
import type { RecordingEvent, RecordingHeader } from '../../../src/model/events.ts';
import type { StreamItem } from '../../../src/model/stream.ts';
import { Tables } from '../../../src/model/tables.ts';
import type { SinkOptions } from '../../../src/sinks/text-extra.ts';
import { MmiotraceSink } from '../../../src/sinks/mmiotrace.ts';
import { TextTime } from '../../../src/sinks/text-time.ts';
import { TextWriter } from '../../../src/sinks/text-writer.ts';
import { MemoryOutput } from '../../support/memory-output.ts';
import {
  batchOf,
  KERNEL_HEADER,
  SAMPLE_DEVICE,
  SAMPLE_EVENTS,
  SAMPLE_HEADER,
  SAMPLE_ITEMS,
} from '../../support/sample-session.ts';
import { written } from '../../support/sink-run.ts';

function textOf(
  items: Iterable<StreamItem>,
  header: RecordingHeader = SAMPLE_HEADER,
  options?: SinkOptions,
): Promise<string> {
  return written((output) => new MmiotraceSink(output, options), header, items);
}

/** Lines without what `begin` writes. */
async function linesOf(
  items: Iterable<StreamItem>,
  header: RecordingHeader = SAMPLE_HEADER,
  options?: SinkOptions,
): Promise<string[]> {
  const lines = (await textOf(items, header, options)).split('\n').slice(0, -1);
  return lines.slice(header.source === 'mmiotrace' ? 1 : 2);
}

const { bar0, bar1, map, mapPort, config, device } = SAMPLE_EVENTS;

describe('mmiotrace text', () => {
  it('is this, for a recording with one of everything', async () => {
    await expect(await textOf(SAMPLE_ITEMS)).toMatchFileSnapshot('../../golden/sample.mmiotrace');
  });

  it('begins with VERSION, then says what made it', async () => {
    const [version, head] = (await textOf([])).split('\n');
    expect(version).toBe('VERSION 20070824');
    expect(head).toBe(
      'MARK 0.000000 mmiobridge: session mmiobridge 0.1.0, source qemu-log, clock qemu, ' +
        'started 2026-01-01T00:00:00.123456Z, QEMU 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)',
    );
  });

  it('gets nothing added when the recording is the log of a kernel', async () => {
    const { coverage, end } = SAMPLE_EVENTS;
    expect(await textOf([coverage, end], KERNEL_HEADER)).toBe('VERSION 20070824\n');
  });

  it('goes on after a cut without a head', async () => {
    const output = new MemoryOutput();
    const sink = new MmiotraceSink(output);
    const tables = new Tables();
    for (const event of [device, bar0, map]) tables.apply(event);
    sink.resume({ ...SAMPLE_HEADER, textBaseSec: 7 }, tables.snapshot(), 0);
    await sink.write(batchOf({ offset: 0x10 }));
    await sink.end();
    expect(output.text()).toBe('R 4 7.000000 1 0xfebc0010 0x0 0x0 0\n');
    expect(output.closed).toBe(true);
  });
});

describe('PCIDEV', () => {
  it('ends in the driver, or in one space where none is known', async () => {
    const [line] = await linesOf([device]);
    expect(line).toBe(
      'PCIDEV 0010 808610d3 b febc0000 c001 380000000c 0 0 0 feb80000 20000 20 4000 0 0 0 40000 e1000e',
    );
    const [bare] = await linesOf([{ ...device, device: { ...SAMPLE_DEVICE, driver: '' } }]);
    expect(bare).toBe(line?.replace('e1000e', ''));
  });

  it('is not there before anything of the device has an address, except in a kernel`s log', async () => {
    const bars = SAMPLE_DEVICE.bars.map((bar) => ({ ...bar, start: 0 }));
    const early = { ...device, device: { ...SAMPLE_DEVICE, bars } };
    expect(await linesOf([early])).toEqual([]);
    expect(await linesOf([early], KERNEL_HEADER)).toHaveLength(1);
  });
});

describe('MAP', () => {
  it('is there for memory and the ROM, not for I/O ports', async () => {
    const romBar = { start: 0xfeb80000, flags: 1, sizeBytes: 0x40000 };
    const bars = [...SAMPLE_DEVICE.bars.slice(0, 6), romBar];
    const withRom = { ...device, device: { ...SAMPLE_DEVICE, bars } };
    const rom: RecordingEvent = {
      ...bar0,
      region: { id: 3, device: 0, kind: 'rom', bar: 6, name: 'ROM', sizeBytes: 0x40000 },
    };
    const mapRom = { ...map, mapping: { ...map.mapping, mapId: 3, region: 3, gpa: 0xfeb80000 } };
    const unmap = (mapId: number): RecordingEvent => ({ kind: 'unmap', timeNs: 0, mapId });
    const events = [withRom, bar0, bar1, rom, map, mapPort, mapRom, unmap(1), unmap(2), unmap(3)];
    expect((await linesOf(events)).slice(1)).toEqual([
      'MAP 0.002000 1 0xfebc0000 0x0 0x20000 0x0 0',
      'MAP 0.002000 3 0xfeb80000 0x0 0x20000 0x0 0',
      'UNMAP 0.000000 1 0x0 0',
      'UNMAP 0.000000 3 0x0 0',
    ]);
  });
});

describe('an access', () => {
  it('is at the address that its mapping gives it', async () => {
    const shifted: RecordingEvent = { ...map, mapping: { ...map.mapping, regionOffset: 0x1000 } };
    const [, line] = await linesOf([shifted, batchOf({ offset: 0x1404 })]);
    expect(line).toBe('R 4 0.000000 1 0xfebc0404 0x0 0x0 0');
  });

  it('is at its offset where no mapping is known, or only one of another region', async () => {
    const accesses = batchOf({ mapId: 0, offset: 0x18 }, { region: 1, offset: 0x18 });
    const [, first, second] = await linesOf([map, accesses]);
    expect(first).toBe('R 4 0.000000 0 0x18 0x0 0x0 0');
    expect(second).toBe('R 4 0.000000 1 0x18 0x0 0x0 0');
  });

  it('goes through a mapping that has been made anew', async () => {
    const moved: RecordingEvent = { ...map, mapping: { ...map.mapping, gpa: 0xc0000000 } };
    const access = { offset: 4 };
    const lines = await linesOf([map, batchOf(access), moved, batchOf(access)]);
    expect(lines.filter((line) => line.startsWith('R'))).toEqual([
      'R 4 0.000000 1 0xfebc0004 0x0 0x0 0',
      'R 4 0.000000 1 0xc0000004 0x0 0x0 0',
    ]);
  });

  it('prints the kernel`s "no mapid" as -1', async () => {
    const [line] = await linesOf([batchOf({ mapId: 0xffff_ffff })]);
    expect(line).toBe('R 4 0.000000 -1 0x0 0x0 0x0 0');
  });

  it('that the kernel could not decode prints its opcode', async () => {
    const [line] = await linesOf([batchOf({ op: Op.unknown, mapId: 0, value: 0x0f_01_f9n })]);
    expect(line).toBe('UNKNOWN 0.000000 0 0x0 0f,01,f9 0x0 0');
  });

  it('to an I/O port is a MARK, to configuration space one if asked for', async () => {
    const access = { op: Op.write, offset: 0x10, value: 0xabn };
    const items = [
      device,
      bar1,
      config,
      mapPort,
      batchOf(
        { ...access, space: Space.pio, region: 1, mapId: 2 },
        { ...access, space: Space.pio, region: 1, mapId: 0 },
        { ...access, space: Space.config, region: 2, mapId: 0, width: 2 },
      ),
    ];
    const pio = [
      'MARK 0.000000 mmiobridge: pio W 4 nic0 BAR1+0x10 0xc010 0xab',
      'MARK 0.000000 mmiobridge: pio W 4 nic0 BAR1+0x10 - 0xab',
    ];
    expect((await linesOf(items)).slice(1)).toEqual(pio);
    const options = { textExtra: ['config'] as const };
    expect((await linesOf(items, SAMPLE_HEADER, options)).slice(1)).toEqual([
      ...pio,
      'MARK 0.000000 mmiobridge: config W 2 nic0 config+0x10 - 0xab',
    ]);
  });

  it('tells of reads of the option ROM only if asked to', async () => {
    const region = {
      id: 1,
      device: 0,
      kind: 'rom',
      bar: 6,
      name: 'ROM',
      sizeBytes: 0x800,
    } as const;
    const access = { op: Op.write, offset: 0x10, value: 0xabn, region: 1, mapId: 0 };
    const items = [device, { kind: 'region', timeNs: 0, region } as const, batchOf(access)];
    expect((await linesOf(items)).slice(1)).toEqual([]);
    expect((await linesOf(items, SAMPLE_HEADER, { textExtra: ['rom'] })).slice(1)).toEqual([
      'MARK 0.000000 mmiobridge: rom W 4 nic0 ROM+0x10 - 0xab',
    ]);
    // The kernel's own log is left as it is.
    const kernels = { ...SAMPLE_HEADER, source: 'mmiotrace' as const };
    expect((await linesOf(items, kernels)).join()).toMatch(/W 4 0\.000000 0 0x10 0xab/);
  });

  it('prints any value, address, time and PC exactly', async () => {
    const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const row = fc.record({
      timeNs: fc.oneof(fc.integer({ min: 0, max: 5e9 }), fc.maxSafeNat()),
      op: fc.constantFrom(Op.read, Op.write),
      width: fc.constantFrom(1, 2, 4, 8, 16),
      offset: fc.oneof(fc.nat(), fc.maxSafeNat()),
      value: u64,
      pc: u64,
      mapId: fc.constant(0),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(row), async (rows) => {
        const expected = rows.map((access) => {
          const us = BigInt(access.timeNs) / 1000n;
          const time = `${us / 1_000_000n}.${String(us % 1_000_000n).padStart(6, '0')}`;
          const [offset, value, pc] = [access.offset, access.value, access.pc].map(
            (number) => `0x${number.toString(16)}`,
          );
          return `${access.op === Op.read ? 'R' : 'W'} ${access.width} ${time} 0 ${offset} ${value} ${pc} 0`;
        });
        expect(await linesOf([batchOf(...rows)])).toEqual(expected);
      }),
    );
  });
});

describe('time', () => {
  it.each([
    [0, 0, '0.000000'],
    [1_999, 0, '0.000001'],
    [999_999_999, 41, '41.999999'],
    [-1, 5, '4.999999'],
    [-5_000_000_001, 5, '0.000000'],
    [-4_294_967_295e9, 4_294_967_295, '0.000000'],
    // A recording that spans 136 years has no nanoseconds, but all of its microseconds.
    [4_294_967_295 * 1e9 + 123_457_000, 0, '4294967295.123457'],
  ])('%d ns after second %d prints as %s', (timeNs, baseSec, text) => {
    const time = new TextTime(baseSec);
    const bytes = new Uint8Array(24);
    for (const before of [0, timeNs, 1e9]) {
      time.put(bytes, 0, before);
      const end = time.put(bytes, 0, timeNs);
      expect(Buffer.from(bytes.subarray(0, end)).toString()).toBe(text);
    }
    expect(time.text(timeNs)).toBe(text);
  });
});

describe('loss', () => {
  const loss = { ...SAMPLE_EVENTS.loss, timeNs: 1e9 };

  it('that the kernel reported is in the kernel`s words', async () => {
    const lines = await linesOf(
      [{ ...loss, timeNs: -77e9, count: 1532, durationNs: 0, reason: 'kernel' }],
      { ...KERNEL_HEADER, textBaseSec: 77 },
    );
    expect(lines).toEqual(['MARK 0.000000 Lost 1532 events.']);
  });

  it('begins like that in any case, and says for how long and why', async () => {
    const known = `MARK 1.000000 Lost 12 events within 0.003200 seconds: ${loss.reason}`;
    expect(await linesOf([loss])).toEqual([known]);
    expect(await linesOf([{ ...loss, count: -1, durationNs: 0, reason: 'overflow' }])).toEqual([
      'MARK 1.000000 Lost an unknown number of events: overflow',
    ]);
  });

  it('is the only thing that `grep -i lost` finds', async () => {
    const isLoss = (item: StreamItem): boolean =>
      !(item instanceof AccessBatch) && (item.kind === 'loss' || item.kind === 'end');
    const counters = { ...SAMPLE_EVENTS.end.counters, lost: 0, lossEvents: 0 };
    const text = await textOf([
      ...SAMPLE_ITEMS.filter((item) => !isLoss(item)),
      { ...SAMPLE_EVENTS.end, counters },
    ]);
    expect(text).not.toMatch(/lost/i);
    expect(await textOf(SAMPLE_ITEMS)).toMatch(/lost/i);
  });
});

describe('MARK', () => {
  const mark = (text: string): RecordingEvent => ({ kind: 'mark', timeNs: 0, text });

  it('is cut into several where it is long, between words', async () => {
    const words = Array.from({ length: 600 }, (_, i) => `word${i}`).join(' ');
    const lines = await linesOf([mark(words)]);
    expect(lines.length).toBeGreaterThan(3);
    expect(lines.map((line) => line.slice('MARK 0.000000 '.length)).join(' ')).toBe(words);
  });

  it('of the kernel keeps its spaces, and all of its characters when it is cut', async () => {
    expect(await linesOf([mark(' a  b ')], KERNEL_HEADER)).toEqual(['MARK 0.000000  a  b ']);
    const long = 'a b  '.repeat(500);
    const lines = await linesOf([mark(long)], KERNEL_HEADER);
    expect(lines.map((line) => line.slice('MARK 0.000000 '.length)).join('')).toBe(long);
  });

  it('never breaks the format, whatever texts and names there are', async () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.string({ maxLength: 2500 }),
      fc.constantFrom('', ' ', 'R 4 x', 'W', 'UNKNOWN', '# x', 'a\nR 4 1.0', 'x\r', '\u0000'),
    );
    const event = fc.oneof(
      text.map(mark),
      text.map((said): RecordingEvent => ({ kind: 'line', timeNs: 0, text: said })),
      text.map((reason): RecordingEvent => ({ ...SAMPLE_EVENTS.loss, reason })),
      text.map((evidence): RecordingEvent => ({ ...SAMPLE_EVENTS.damage, evidence })),
      text.map((state): RecordingEvent => ({ kind: 'vm-state', timeNs: 0, state })),
      text.map((name): RecordingEvent => ({ ...device, device: { ...SAMPLE_DEVICE, name } })),
      text.map((why): RecordingEvent => {
        const { statement } = SAMPLE_EVENTS.coverage;
        const ranges = statement.ranges.map((range) => ({ ...range, why, device: why }));
        return { ...SAMPLE_EVENTS.coverage, statement: { ...statement, ranges, notes: [why] } };
      }),
    );
    const port = batchOf({ space: Space.pio, region: 1, mapId: 2 });
    await fc.assert(
      fc.asyncProperty(fc.array(event), async (events) => {
        const all = await textOf([...events, bar1, SAMPLE_EVENTS.reset, port]);
        expect(all).toMatch(/^(?:[\x20-\x7e]{1,999}\n)+$/);
        const lines = all.trimEnd().split('\n');
        expect(lines.filter((line) => /^(?:[RW#]|UNKNOWN)/.test(line))).toEqual([]);
        const marks = lines.filter((line) => line.startsWith('MARK'));
        expect(marks.filter((line) => !/^MARK \d+\.\d{6}(?: \S+)+$/.test(line))).toEqual([]);
      }),
    );
  });
});

describe('a line of somebody else', () => {
  it('is kept as it is, unless it would be read as an access', async () => {
    const line = (text: string): RecordingEvent => ({ kind: 'line', timeNs: 1000, text });
    const texts = ['LSPCI 00:02.0  Ethernet', 'CPU 1 is down', 'Writing', 'R 4 1', '#', ''];
    expect(await linesOf(texts.map(line))).toEqual([
      'LSPCI 00:02.0  Ethernet',
      'CPU 1 is down',
      'MARK 0.000001 Writing',
      'MARK 0.000001 R 4 1',
      'MARK 0.000001 #',
    ]);
  });
});

describe('an output that is slow', () => {
  const batch = new AccessBatch(4096);
  batch.length = batch.capacity;
  batch.offset.forEach((_, i) => (batch.offset[i] = i));

  it('makes writes wait when both buffers are with it, and gets all of it in order', async () => {
    const output = new MemoryOutput(5);
    const sink = new MmiotraceSink(output);
    await sink.begin(KERNEL_HEADER);
    let waited = 0;
    let atOnce = 0;
    for (let i = 0; i < 40; i++) {
      const promise = sink.write(batch);
      if (promise === undefined) atOnce++;
      else waited++;
      await promise;
    }
    await sink.flush();
    await sink.end();
    const one = Array.from(
      { length: 4096 },
      (_, i) => `R 0 0.000000 0 0x${i.toString(16)} 0x0 0x0 0\n`,
    );
    expect(output.text() === `VERSION 20070824\n${one.join('').repeat(40)}`).toBe(true);
    expect(waited).toBeGreaterThan(2);
    expect(atOnce).toBeGreaterThan(20);
  });

  it('and one that fails makes the next write, the flush and the end fail', async () => {
    const full = new Error('ENOSPC');
    const output = new MemoryOutput();
    output.write = () => Promise.reject(full);
    const sink = new MmiotraceSink(output);
    await sink.begin(KERNEL_HEADER);
    const writing = async (): Promise<void> => {
      for (let i = 0; i < 40; i++) await sink.write(batch);
    };
    await expect(writing()).rejects.toBe(full);
    await expect(sink.flush()).rejects.toBe(full);
    await expect(sink.end()).rejects.toBe(full);
    expect(output.closed).toBe(true);
  });

  it('gets texts of any length through buffers of any size', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'grapheme', maxLength: 60 })),
        fc.integer({ min: 1, max: 20 }),
        async (texts, bufferBytes) => {
          const output = new MemoryOutput();
          const writer = new TextWriter(output, bufferBytes);
          for (const text of texts) await writer.text(text);
          const length = await writer.flush();
          expect(output.bytes().toString('utf8')).toBe(texts.join(''));
          expect(length).toBe(Buffer.byteLength(texts.join('')));
        },
      ),
    );
  });
});
