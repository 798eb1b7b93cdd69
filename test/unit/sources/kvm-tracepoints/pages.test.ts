import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Kind, KvmEvents } from '../../../../src/sources/kvm-tracepoints/events.ts';
import { parseFormats } from '../../../../src/sources/kvm-tracepoints/formats.ts';
import { PageReader, usedBytes } from '../../../../src/sources/kvm-tracepoints/pages.ts';
import { Rounds } from '../../../../src/sources/kvm-tracepoints/rounds.ts';
import {
  FORMATS,
  formatTexts,
  page,
  readPlainly,
  realPage,
  type PlainRecord,
  type Rec,
} from '../../../support/kvm-pages.ts';

/** In the words of the plain twin. */
function describeError(events: KvmEvents, row: number): PlainRecord {
  const [timeNs, thread, kind, width, count, address, lo, hi] = events.row(row);
  const value = ((BigInt(hi) << 32n) | BigInt(lo)).toString(16);
  const what = {
    [Kind.instruction]: `at ${value}`,
    [Kind.readAsked]: `asked ${width} ${address} ${value}`,
    [Kind.read]: `read ${width} ${address} ${value}`,
    [Kind.write]: `write ${width} ${address} ${value}`,
    [Kind.portRead]: `in ${width} ${address} x${count} ${value}`,
    [Kind.portWrite]: `out ${width} ${address} x${count} ${value}`,
    [Kind.portInstruction]: `port ${width} ${address} ${count === 1 ? 'in' : 'out'} ${value}`,
    [Kind.lost]: `lost ${hi === 0 ? lo : -1}`,
  }[kind];
  return { timeNs: BigInt(timeNs), thread, what: what ?? `kind ${kind}` };
}

function readFast(bytes: Uint8Array, formats = FORMATS): (PlainRecord | undefined)[] {
  const events = new KvmEvents();
  const whole = new PageReader(formats, 0n).read(bytes, events);
  const records = Array.from({ length: events.length }, (_, row) => describeError(events, row));
  return whole ? records : [...records, undefined];
}

const mmio = (t: number, type: 'asked' | 'read' | 'write', val = 0n): Rec => ({
  is: 'mmio',
  t,
  type,
  gpa: 0xfebc_0010,
  val,
});

describe('a page', () => {
  test('that Linux 6.18 wrote', () => {
    const records = readFast(realPage());
    expect(records).toEqual(readPlainly(realPage()));
    expect(records).toHaveLength(96);
    expect(records[0]).toEqual({ timeNs: 13709812721294n, thread: 13287, what: 'at 100051' });
    const accesses = records.filter((record) => /^(read|write)/.test(record?.what ?? ''));
    expect(accesses.map((record) => record?.what)).toMatchInlineSnapshot(`
      [
        "write 4 3774873604 0",
        "read 4 3774873604 ffffffff",
        "write 4 3774873604 1",
        "read 4 3774873604 fffffffe",
        "write 4 3774873604 2",
        "read 4 3774873604 fffffffd",
        "write 4 3774873604 3",
      ]
    `);
  });
  test('of every kind of record', () => {
    const recs: Rec[] = [
      { is: 'instruction', t: 1000, rip: 0xffff_ffff_c021_83ban },
      { is: 'instruction', t: 1001, rip: 0xfff0n, csbase: 0xffff_0000 },
      mmio(1002, 'write', 0x1122_3344_5566_7788n),
      mmio(1002, 'asked'),
      { is: 'discarded', t: 1010 },
      { is: 'foreign', t: 1020 },
      mmio(2 ** 40, 'read', 5n),
      { is: 'pio', t: 2 ** 40 + 1, write: true, port: 0xc000, val: 7 },
      { is: 'exit', t: 2 ** 40 + 2, reason: 30, rip: 0x10n, info1: 0xc004_000bn },
      { is: 'exit', t: 2 ** 40 + 3, reason: 0x7b, rip: 0x11n, info1: 0xc008_0040n },
      { is: 'exit', t: 2 ** 40 + 4, reason: 48, rip: 0x12n, info1: 0n },
    ];
    for (const longForm of [false, true]) {
      const bytes = page(recs, { longForm });
      expect(readFast(bytes)).toEqual(readPlainly(bytes));
      expect(readFast(bytes).map((record) => record?.what)).toEqual([
        'at ffffffffc02183ba',
        'at fffffff0',
        'write 4 4273733648 1122334455667788',
        'asked 4 4273733648 0',
        'read 4 4273733648 5',
        'out 4 49152 x1 7',
        'port 4 49156 in 10',
        'port 4 49160 out 11',
      ]);
    }
  });
  test('says how many records were lost before it, if it knows', () => {
    expect(readFast(page([mmio(5, 'write')], { lost: 17 }))[0]?.what).toBe('lost 17');
    expect(readFast(page([mmio(5, 'write')], { lost: -1 }))[0]?.what).toBe('lost -1');
  });
  test('counts as many records as the kernel does', () => {
    const reader = new PageReader(FORMATS, 0n);
    reader.read(
      page([mmio(5, 'write'), { is: 'foreign', t: 6 }, { is: 'discarded', t: 7 }]),
      new KvmEvents(),
    );
    expect(reader.records).toBe(3);
  });
  test('need not be kept whole', () => {
    for (const bytes of [
      page([mmio(5, 'write')]),
      page([mmio(5, 'write')], { lost: 3 }),
      realPage(),
    ]) {
      const short = bytes.subarray(0, usedBytes(bytes, FORMATS));
      expect(readFast(Buffer.from(short))).toEqual(readFast(bytes));
    }
    expect(usedBytes(page([mmio(5, 'write')]), FORMATS)).toBeLessThan(100);
  });
  test('of a kernel whose fields lie elsewhere', () => {
    const texts = formatTexts();
    const moved = parseFormats({
      ...texts,
      kvm_mmio: (texts['kvm_mmio'] ?? '').replace('gpa;\toffset:16', 'gpa;\toffset:40'),
      header_page: (texts['header_page'] ?? '').replace('size:4080', 'size:16368'),
    });
    const bytes = page([mmio(5, 'write', 9n)], { formats: moved });
    expect(bytes).toHaveLength(16384);
    expect(readFast(bytes, moved)).toEqual([
      { timeNs: 5n, thread: 100, what: 'write 4 4273733648 9' },
    ]);
  });
  test('that is damaged is read as the plain twin reads it', () => {
    const words = fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 40 });
    const good = fc.constantFrom(
      page([mmio(5, 'write'), mmio(6, 'asked'), { is: 'instruction', t: 9, rip: 1n }]),
      page([mmio(5, 'write'), { is: 'discarded', t: 8 }, mmio(2 ** 30, 'read')], { lost: 2 }),
      realPage(),
    );
    const patch = fc.tuple(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 255 }));
    const damaged = fc
      .tuple(good, fc.array(patch, { maxLength: 6 }), fc.integer({ min: 0, max: 4096 }))
      .map(([bytes, patches, length]) => {
        const copy = Buffer.from(bytes);
        for (const [at, byte] of patches) copy[at] = byte;
        return copy.subarray(0, Math.max(length, 400));
      });
    const random = words.map((list) => {
      const bytes = Buffer.alloc(16 + 4 * list.length);
      bytes.writeUInt32LE(4 * list.length, 8);
      for (const [i, word] of list.entries()) bytes.writeUInt32LE(word, 16 + 4 * i);
      return bytes;
    });
    // Times beyond 2^53 are not exact; what damage makes of them is nothing to compare.
    const told = (records: readonly (PlainRecord | undefined)[]) =>
      records.map((record) => record && [record.thread, record.what]);
    fc.assert(
      fc.property(fc.oneof(damaged, random), (bytes) => {
        expect(told(readFast(bytes))).toEqual(told(readPlainly(bytes)));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("a kernel's description of its records", () => {
  test('that lacks a field is refused, with what it says', () => {
    const texts = formatTexts();
    const without = { ...texts, kvm_mmio: (texts['kvm_mmio'] ?? '').replace('gpa', 'gpb') };
    expect(() => parseFormats(without)).toThrow('prints kvm_mmio in a way that is not known');
    expect(() => parseFormats({ ...texts, header_page: '' })).toThrow('header_page');
  });
});

describe('rounds', () => {
  test('put a thread in order that went from one CPU to another', () => {
    const rounds = new Rounds(new PageReader(FORMATS, 0n));
    const times = () => [...rounds.events.timeNs.subarray(0, rounds.events.length)];
    // CPU 0 was read before the thread left it, CPU 1 after it had come there.
    rounds.page(0, page([mmio(10, 'write'), mmio(20, 'write')]));
    rounds.page(1, page([mmio(50, 'write')]));
    rounds.end(25);
    expect(times()).toEqual([10, 20]);
    rounds.page(0, page([mmio(30, 'write'), mmio(40, 'write')]));
    rounds.end(60);
    expect(times()).toEqual([30, 40, 50]);
    rounds.end(70);
    expect(times()).toEqual([]);
  });
  test('lose and double nothing, however the pages are cut', () => {
    const recs = fc.array(
      fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 1, max: 9 })),
      {
        maxLength: 60,
      },
    );
    fc.assert(
      fc.property(recs, fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }), (list, cuts) => {
        let reader = new Rounds(new PageReader(FORMATS, 0n));
        const seen: number[] = [];
        const take = () => seen.push(...reader.events.lo.subarray(0, reader.events.length));
        let now = 0;
        for (const [i, [cpu, delta]] of list.entries()) {
          now += delta;
          reader.page(cpu, page([mmio(now, 'write', BigInt(i))]));
          if (cuts[i] !== true) continue;
          reader.end(now - 5);
          take();
          // In another process.
          reader = new Rounds(new PageReader(FORMATS, 0n), structuredClone(reader.snapshot()));
        }
        reader.end(now);
        take();
        expect(seen).toEqual(list.map((_, i) => i));
      }),
    );
  });
});
