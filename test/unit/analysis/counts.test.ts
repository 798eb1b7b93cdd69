import { describe, expect, test } from 'vitest';
import { Histogram } from '../../../src/analysis/histogram.ts';
import { RecordingCounts } from '../../../src/analysis/recording-counts.ts';
import { accessesByDevice, RegionCounts } from '../../../src/analysis/region-counts.ts';
import { busiest, RegisterCounts } from '../../../src/analysis/register-counts.ts';
import { MAX_REGISTERS, OTHERS, RegisterTable } from '../../../src/analysis/register-table.ts';
import { WHOLE } from '../../../src/analysis/span.ts';
import { countersOf, TotalsAnalysis } from '../../../src/analysis/totals.ts';
import { EVENTS } from '../../support/captures.ts';
import { batch, read, twoDevices, write } from '../../support/recorded.ts';

test('totals count each kind once, and know the latest time', () => {
  const of = new TotalsAnalysis();
  of.batch(batch(read(5, 0), write(9, 0), read(7, 0, 0, { op: 2 })));
  for (const event of Object.values(EVENTS)) if (event.kind !== 'end') of.event(event);
  of.event({ ...EVENTS.loss, count: 4 });
  const totals = of.result();
  expect(totals).toEqual({
    reads: 2,
    writes: 1,
    lost: 4,
    lossEvents: 2,
    damages: 1,
    failed: 1,
    marks: 1,
    notices: 1,
    interrupts: 1,
    resets: 1,
    lastTimeNs: 12,
  });
  expect(new TotalsAnalysis(totals).result()).toEqual(totals);
  expect(countersOf(totals, { text: 2 })).toEqual({
    reads: 2,
    writes: 1,
    lost: 4,
    lossEvents: 2,
    damagedLines: 1,
    otherLines: { text: 2 },
  });
});

test('traffic by region, and by device', () => {
  const of = new RegionCounts();
  of.batch(batch(read(1, 0), read(1, 4), write(1, 0, 0, { region: 2 }), read(1, 8)));
  const traffic = of.result();
  expect(traffic).toEqual([{ reads: 3, writes: 0 }, null, { reads: 0, writes: 1 }]);
  expect(accessesByDevice(traffic, twoDevices())).toEqual({ nic0: 3, gpu: 1 });
  // As it comes back from JSON.
  expect(new RegionCounts(JSON.parse(JSON.stringify(traffic)) as never).result()).toEqual(traffic);
});

describe('traffic by register', () => {
  test('has the last value, by region and offset', () => {
    const of = new RegisterCounts();
    of.batch(batch(read(1, 8, 1), read(2, 8, 2), write(3, 8, 3, { region: 1, width: 2 })));
    of.batch(batch(write(4, 8, 0xff, { valueHi: 7, width: 8 })));
    const { registers, others } = of.result();
    expect(registers).toEqual([
      { region: 0, offset: 8, reads: 2, writes: 1, width: 8, valueLo: 0xff, valueHi: 7 },
      { region: 1, offset: 8, reads: 0, writes: 1, width: 2, valueLo: 3, valueHi: 0 },
    ]);
    expect(others).toBeUndefined();
    expect(busiest(registers, 1)).toEqual([registers[0]]);
  });

  test('is bounded: what comes after so many registers is one row, others', () => {
    const of = new RegisterCounts();
    const step = 4096;
    for (let first = 0; first < MAX_REGISTERS + step; first += step) {
      of.batch(batch(...Array.from({ length: step }, (_, at) => read(1, 4 * (first + at)))));
    }
    of.batch(batch(write(2, 4 * MAX_REGISTERS), read(2, 0)));
    const { registers, others } = of.result();
    expect(registers).toHaveLength(MAX_REGISTERS);
    expect(registers[0]?.reads).toBe(2);
    expect(others).toEqual({ reads: step, writes: 1 });
    // And so it stays when the recording is resumed.
    const resumed = RegisterCounts.restore(JSON.parse(JSON.stringify(of.snapshot())) as never);
    resumed.batch(batch(read(3, 4 * MAX_REGISTERS), read(3, 4)));
    expect(resumed.result().others).toEqual({ reads: step + 1, writes: 1 });
    expect(resumed.result().registers[1]?.reads).toBe(2);
  });

  test('a table knows what it has, and what it cannot tell apart', () => {
    const table = new RegisterTable();
    expect([...table.column(batch(read(1, 4), read(1, 8), read(1, 4))).subarray(0, 3)]).toEqual([
      0, 1, 0,
    ]);
    expect([table.find(0, 8), table.find(1, 8)]).toEqual([1, -1]);
    table.column(batch(...Array.from({ length: MAX_REGISTERS }, (_, at) => read(1, at))));
    expect(table.find(1, 8)).toBe(OTHERS);
  });
});

describe('a histogram', () => {
  test('of a span has a thousand intervals', () => {
    const of = new Histogram({ fromNs: 1000, toNs: 1000 + 10_240 });
    of.batch(batch(read(1000, 0), write(1009, 0), read(1010, 0), read(11_239, 0)));
    of.event({ ...EVENTS.interrupt, timeNs: 1010 });
    const { fromNs, widthNs, reads, writes, interrupts } = of.result();
    expect([fromNs, widthNs, reads.length]).toEqual([1000, 10, 1024]);
    expect([reads[0], reads[1], reads[1023], writes[0], interrupts[1]]).toEqual([1, 1, 1, 1, 1]);
  });
  test('without an end widens its intervals, and loses nothing', () => {
    const of = new Histogram(WHOLE);
    const times = Array.from({ length: 1000 }, (_, at) => at * 10_000_000);
    of.batch(batch(...times.map((timeNs) => write(timeNs, 0))));
    const { widthNs, writes } = of.result();
    expect(writes.length).toBeLessThanOrEqual(2048);
    expect(writes.reduce((sum, count) => sum + count, 0)).toBe(1000);
    const last = Math.floor(9_990_000_000 / widthNs);
    expect(writes.length).toBe(last + 1);
  });
});

test('all that is counted of a recording survives as JSON', () => {
  const before = new RecordingCounts();
  before.write(EVENTS.device);
  before.write(EVENTS.region);
  before.write(batch(read(1, 8, 1), write(2, 8, 2, { region: 2 })));
  for (const event of [EVENTS.mark, EVENTS.interrupt, EVENTS.reset]) before.write(event);
  const saved = JSON.parse(JSON.stringify(before.snapshot())) as ReturnType<
    RecordingCounts['snapshot']
  >;
  const after = new RecordingCounts(saved);
  expect(after.result()).toEqual(before.result());
  expect(after.tables.snapshot()).toEqual(before.tables.snapshot());
  after.write(batch(read(3, 8, 3)));
  expect(after.totals.reads).toBe(2);
  expect(after.result().registers.registers[0]).toMatchObject({ reads: 2, valueLo: 3 });
});
