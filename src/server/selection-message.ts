import type { RegionTraffic } from '../analysis/region-counts.ts';
import { busiest, type RegisterCount } from '../analysis/register-counts.ts';
import { accessesOf } from '../analysis/totals.ts';
import { bytesOf } from '../wire/columns.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import type { Selection } from './selection.ts';

/** More do not fit a screen. */
const MAX_SHOWN = 4096;

export type SelectionMessage = Omit<mmiobridge.v1.Selection.$Properties, 'slot'>;

/** A selection as pages are told of it. */
export function selectionMessage(selection: Selection): SelectionMessage {
  const { totals, histogram, registers: traffic, regions, unknownNames } = selection.result();
  const { registers, others } = traffic;
  const shown = registers.length > MAX_SHOWN ? busiest(registers, MAX_SHOWN) : registers;
  return {
    rows: accessesOf(totals),
    seen: selection.seen,
    caughtUp: selection.caughtUp,
    reads: totals.reads,
    writes: totals.writes,
    histogram: {
      fromNs: histogram.fromNs,
      widthNs: histogram.widthNs,
      reads: wholeColumn(histogram.reads),
      writes: wholeColumn(histogram.writes),
      interrupts: wholeColumn(histogram.interrupts),
    },
    registerCount: registers.length,
    registers: registerColumns(shown),
    otherReads: others?.reads ?? 0,
    otherWrites: others?.writes ?? 0,
    regions: regionColumns(regions, registers),
    unknownNames: [...unknownNames],
  };
}

function registerColumns(registers: readonly RegisterCount[]): mmiobridge.v1.Registers.$Properties {
  const ordered = registers.toSorted((a, b) => a.region - b.region || a.offset - b.offset);
  const u32 = (of: (register: RegisterCount) => number) =>
    wholeColumn(Uint32Array.from(ordered, of));
  return {
    region: wholeColumn(Uint16Array.from(ordered, ({ region }) => region)),
    offsetLow: u32(({ offset }) => offset),
    offsetHigh: u32(({ offset }) => Math.floor(offset / 2 ** 32)),
    reads: u32(({ reads }) => reads),
    writes: u32(({ writes }) => writes),
    valueLow: u32(({ valueLo }) => valueLo),
    valueHigh: u32(({ valueHi }) => valueHi),
    width: Uint8Array.from(ordered, ({ width }) => width),
  };
}

function regionColumns(
  traffic: RegionTraffic,
  registers: readonly RegisterCount[],
): mmiobridge.v1.Regions.$Properties {
  const ids = [...traffic.keys()].filter((id) => traffic[id] !== null);
  const told = new Uint32Array(traffic.length);
  for (const { region } of registers) told[region]!++;
  return {
    region: wholeColumn(Uint16Array.from(ids)),
    registers: wholeColumn(Uint32Array.from(ids, (id) => told[id]!)),
    reads: wholeColumn(Float64Array.from(ids, (id) => traffic[id]!.reads)),
    writes: wholeColumn(Float64Array.from(ids, (id) => traffic[id]!.writes)),
  };
}

function wholeColumn(column: Uint16Array | Uint32Array | Float64Array): Uint8Array {
  return bytesOf(column, 0, column.length);
}
