/** Which accesses: by filter, by span, and cut out of a stream. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AnalysisPass, type Analysis } from '../../../src/analysis/analysis.ts';
import { parseFilter } from '../../../src/analysis/filter/parse.ts';
import { RowSelector } from '../../../src/analysis/row-selector.ts';
import { SpanCut } from '../../../src/analysis/span-cut.ts';
import { isBatch, type StreamItem } from '../../../src/model/stream.ts';
import { Tables } from '../../../src/model/tables.ts';
import { EVENTS } from '../../support/captures.ts';
import { batch, NIC, read, textOf, twoDevices, write } from '../../support/recorded.ts';

const span = (fromNs: number, toNs: number) => ({ fromNs, toNs });

describe('a row selector', () => {
  test('hands out the batch itself where all rows belong', () => {
    const rows = batch(read(1, 0), write(2, 4));
    expect(new RowSelector({}, new Tables()).select(rows)).toBe(rows);
  });
  test('copies the rows that do, and says where they stood', () => {
    const rows = batch(read(1, 0), write(2, 4), write(3, 8), read(4, 0xc), write(5, 0x10));
    const of = new RowSelector({ filter: parseFilter('write'), span: span(2, 5) }, twoDevices());
    const picked = of.select(rows);
    expect(picked && textOf(picked)).toEqual(['W 4@2=0', 'W 8@3=0']);
    expect([...of.picked.subarray(0, 2)]).toEqual([1, 2]);
    expect(of.select(batch(read(9, 0)))).toBeUndefined();
  });
  test('leaves out the first rows if asked to', () => {
    const rows = batch(read(1, 0), read(2, 4), read(3, 8));
    const picked = new RowSelector({}, new Tables()).select(rows, 2);
    expect(picked && textOf(picked)).toEqual(['R 8@3=0']);
  });
  test('keeps all columns of runs of any length', () => {
    const access = fc.record({ timeNs: fc.nat(9), keep: fc.boolean(), valueHi: fc.nat(2 ** 31) });
    fc.assert(
      fc.property(fc.array(access, { minLength: 1, maxLength: 60 }), (list) => {
        const rows = batch(
          ...list.map(({ timeNs, keep, valueHi }, at) =>
            read(timeNs, at, at, { op: keep ? 1 : 0, valueHi, pcLo: at, pcHi: 7, mapId: at }),
          ),
        );
        const of = new RowSelector({ filter: parseFilter('write') }, new Tables());
        const picked = of.select(rows);
        const kept = list.flatMap(({ keep }, at) => (keep ? [at] : []));
        const offsets = picked === undefined ? [] : [...picked.offset.subarray(0, picked.length)];
        expect(offsets).toEqual(kept);
        for (const [row, at] of kept.entries()) {
          expect([picked?.valueHi[row], picked?.pcLo[row], picked?.mapId[row]]).toEqual([
            list[at]?.valueHi,
            at,
            at,
          ]);
        }
      }),
    );
  });
});

describe('one pass', () => {
  /** What it is told, in words. */
  class Teller implements Analysis<readonly string[]> {
    readonly #said: string[] = [];
    batch(rows: Parameters<Analysis<unknown>['batch']>[0], tables: Tables): void {
      this.#said.push(...textOf(rows).map((row) => `${tables.devices.length} ${row}`));
    }
    event({ kind }: Parameters<Analysis<unknown>['event']>[0], tables: Tables): void {
      this.#said.push(`${tables.devices.length} ${kind}`);
    }
    result(): readonly string[] {
      return this.#said;
    }
  }
  const items: StreamItem[] = [
    batch(read(1, 0)),
    { kind: 'device', timeNs: 2, device: NIC },
    batch(write(3, 4), read(4, 8)),
    { ...EVENTS.mark, timeNs: 5 },
  ];

  test('feeds any number of analyses, with the tables as they stand', () => {
    const tellers = [new Teller(), new Teller()];
    const pass = new AnalysisPass(tellers);
    for (const item of items) pass.write(item);
    const said = ['0 R 0@1=0', '1 device', '1 W 4@3=0', '1 R 8@4=0', '1 mark'];
    expect(tellers.map((teller) => teller.result())).toEqual([said, said]);
  });
  test('may have a filter and a span; what devices there are is known all the same', () => {
    const teller = new Teller();
    const selection = { filter: parseFilter('read'), span: span(3, 5) };
    const pass = new AnalysisPass([teller], { selection });
    for (const item of items) pass.write(item);
    expect(teller.result()).toEqual(['1 R 8@4=0']);
  });
});

describe('a span that is cut out', () => {
  test('has what happened in it, the devices from before, and counters of its own', () => {
    const cut = new SpanCut(span(10, 20));
    const items: StreamItem[] = [
      { ...EVENTS.device, timeNs: 1 },
      { ...EVENTS.region, timeNs: 2 },
      { ...EVENTS.map, timeNs: 3 },
      { ...EVENTS.mark, timeNs: 4 },
      batch(read(5, 0), read(10, 4), write(19, 8), read(20, 0xc)),
      { ...EVENTS.loss, timeNs: 12, count: 3 },
      { ...EVENTS.damage, timeNs: 13 },
      { ...EVENTS.mark, timeNs: 20 },
      { ...EVENTS.unmap, timeNs: 21 },
      { ...EVENTS.coverage, timeNs: 30 },
      { ...EVENTS.end, timeNs: 30 },
    ];
    const left = items.flatMap((item): unknown[] => {
      const kept = cut.take(item);
      if (kept === undefined) return [];
      return isBatch(kept) ? textOf(kept) : [kept.kind === 'end' ? kept : kept.kind];
    });
    const counters = {
      reads: 1,
      writes: 1,
      lost: 3,
      lossEvents: 1,
      damagedLines: 1,
      otherLines: {},
    };
    expect(left).toEqual([
      'device',
      'region',
      'map',
      'R 4@10=0',
      'W 8@19=0',
      'loss',
      'damage',
      'coverage',
      { kind: 'end', timeNs: 20, complete: true, counters },
    ]);
  });
});
