import type { HistogramResult } from '../analysis/histogram.ts';
import type { RegisterCount } from '../analysis/register-counts.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import type { Hole, Shown } from './state.ts';

/** Slots: the list has filter and span, the timeline filter and zoom, the map the span alone. */
export const LIST = 0;
export const TIMELINE = 1;
export const MAP = 2;

type Bytes = Uint8Array | null | undefined;

const aligned = (bytes: Bytes): ArrayBuffer => (bytes ?? new Uint8Array(0)).slice().buffer;
export const u32 = (bytes: Bytes): Uint32Array => new Uint32Array(aligned(bytes));
export const f64 = (bytes: Bytes): Float64Array => new Float64Array(aligned(bytes));

export function toShown(message: mmiobridge.v1.Selection.$Properties): Shown {
  return {
    rows: message.rows ?? 0,
    seen: message.seen ?? 0,
    caughtUp: message.caughtUp ?? false,
    reads: message.reads ?? 0,
    writes: message.writes ?? 0,
    histogram: toHistogram(message.histogram ?? {}),
    registers: toRegisters(message.registers ?? {}),
    registerCount: message.registerCount ?? 0,
    others: { reads: message.otherReads ?? 0, writes: message.otherWrites ?? 0 },
    regions: toRegions(message.regions ?? {}),
    unknownNames: message.unknownNames ?? [],
  };
}

function toHistogram(message: mmiobridge.v1.Histogram.$Properties): HistogramResult {
  return {
    fromNs: message.fromNs ?? 0,
    widthNs: message.widthNs ?? 1,
    reads: u32(message.reads),
    writes: u32(message.writes),
    interrupts: u32(message.interrupts),
  };
}

function toRegions(message: mmiobridge.v1.Regions.$Properties): Shown['regions'] {
  const registers = u32(message.registers);
  const reads = f64(message.reads);
  const writes = f64(message.writes);
  const of = (at: number) => ({
    registers: registers[at] ?? 0,
    reads: reads[at] ?? 0,
    writes: writes[at] ?? 0,
  });
  const ids = new Uint16Array(aligned(message.region));
  return new Map([...ids].map((id, at) => [id, of(at)]));
}

export function toHole(message: mmiobridge.v1.Hole.$Properties): Hole {
  return {
    damage: message.damage ?? false,
    fromNs: message.fromNs ?? 0,
    toNs: message.toNs ?? 0,
    row: message.row ?? 0,
    count: message.count ?? 0,
    reason: message.reason ?? '',
  };
}

function toRegisters(message: mmiobridge.v1.Registers.$Properties): RegisterCount[] {
  const region = new Uint16Array(aligned(message.region));
  const low = u32(message.offsetLow);
  const high = u32(message.offsetHigh);
  const reads = u32(message.reads);
  const writes = u32(message.writes);
  const valueLo = u32(message.valueLow);
  const valueHi = u32(message.valueHigh);
  return Array.from(region, (id, at) => ({
    region: id,
    offset: (high[at] ?? 0) * 2 ** 32 + (low[at] ?? 0),
    reads: reads[at] ?? 0,
    writes: writes[at] ?? 0,
    valueLo: valueLo[at] ?? 0,
    valueHi: valueHi[at] ?? 0,
    width: message.width?.[at] ?? 4,
  }));
}
