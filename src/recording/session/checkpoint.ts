/**
 * A checkpoint: how far everything has got, at one place in the stream. With the spool from its
 * position on, and the journal, it is all that another recorder needs to go on as if the one before
 * had never stopped. Taken and put back here, side by side: what is not in it does not survive.
 */
import { z } from 'zod';
import { Attribution, type AttributionSnapshot } from '../../attribution/attribution.ts';
import type { DeviceSnapshot } from '../../attribution/device-state.ts';
import { RecordingCounts, type RecordingCountsSnapshot } from '../../analysis/recording-counts.ts';
import type { Totals } from '../../analysis/totals.ts';
import type { CoverageRange } from '../../model/coverage.ts';
import type { Device, Mapping, Region } from '../../model/device.ts';
import type { SourcePosition } from '../../model/position.ts';
import type { TablesSnapshot } from '../../model/tables.ts';
import { positionSchema } from './saved.ts';

/** What the recorder has beside the spool, its source and its outputs. */
export interface RecordingState {
  readonly attribution: Attribution;
  readonly counts: RecordingCounts;
  /** The mappings of the devices as they were seen so far. */
  readonly coverage: readonly CoverageRange[];
  /** What is known of what cannot be seen, whatever the source. */
  readonly notes: readonly string[];
  /** Devices of which all BARs are known to be trapped, by name, and why. */
  readonly trapped: Readonly<Record<string, string>>;
  /** The head statement is in the outputs. */
  readonly headStated: boolean;
}

export interface Checkpoint {
  /** Everything before it is in the outputs. */
  readonly position: SourcePosition;
  /** So many entries of the journal are in the outputs. */
  readonly journalTaken: number;
  readonly attribution: AttributionSnapshot;
  readonly counts: RecordingCountsSnapshot;
  readonly coverage: readonly CoverageRange[];
  readonly notes: readonly string[];
  readonly trapped: Readonly<Record<string, string>>;
  readonly headStated: boolean;
  /** What the source keeps: its own matter. */
  readonly source: unknown;
  /** Length of each output, in the order of `SessionInfo.outputs`; then that of the collector's. */
  readonly outputBytes: readonly number[];
  /** How many accesses each has had no line for. */
  readonly leftOut: readonly number[];
  readonly userLogBytes: number;
}

/** As JSON, at once: the recording goes on while it is written. */
export function takeCheckpoint(
  state: RecordingState,
  at: Pick<
    Checkpoint,
    'position' | 'journalTaken' | 'source' | 'outputBytes' | 'leftOut' | 'userLogBytes'
  >,
): string {
  const { attribution, counts, coverage, notes, trapped, headStated } = state;
  const checkpoint: Checkpoint = {
    ...at,
    attribution: attribution.snapshot(),
    counts: counts.snapshot(),
    coverage,
    notes,
    trapped,
    headStated,
  };
  return JSON.stringify(checkpoint);
}

/** The state at a checkpoint; without one, that of a recording that begins. */
export function restoreState(
  selection: readonly string[],
  checkpoint: Checkpoint | undefined,
): RecordingState {
  return {
    attribution: new Attribution(selection, checkpoint?.attribution),
    counts: new RecordingCounts(checkpoint?.counts),
    coverage: checkpoint?.coverage ?? [],
    notes: checkpoint?.notes ?? [],
    trapped: checkpoint?.trapped ?? {},
    headStated: checkpoint?.headStated ?? false,
  };
}

const number = z.number();
const text = z.string();
const numbers = z.array(number);

const device: z.ZodType<Device> = z.object({
  id: number,
  name: text,
  type: text,
  qemuId: text,
  hostAddress: text,
  bus: number,
  devfn: number,
  vendorId: number,
  deviceId: number,
  classCode: number,
  irq: number,
  bars: z.array(z.object({ start: number, flags: number, sizeBytes: number })),
  driver: text,
});
const region: z.ZodType<Region> = z.object({
  id: number,
  device: number,
  kind: z.enum(['bar', 'rom', 'config', 'window']),
  bar: number,
  name: text,
  sizeBytes: number,
});
const mapping: z.ZodType<Mapping> = z.object({
  mapId: number,
  region: number,
  regionOffset: number,
  gpa: number,
  lengthBytes: number,
  virt: text,
});
const deviceState: z.ZodType<DeviceSnapshot> = z.object({
  device,
  selected: z.boolean(),
  mappings: z.array(
    z.object({ region, gpa: number, lengthBytes: number, io: z.boolean(), mapId: number }),
  ),
  current: numbers,
  used: numbers,
  regions: z.array(region.nullable()),
  config: region.nullable(),
  usesMsix: z.boolean(),
  qomPath: text,
});
const coverage: z.ZodType<CoverageRange> = z.object({
  device: text,
  region: text,
  offset: number,
  lengthBytes: number,
  state: z.enum(['trapped', 'bypassed', 'emulated', 'unknown']),
  why: text,
});
export const tablesSchema: z.ZodType<TablesSnapshot> = z.object({
  devices: z.array(device),
  regions: z.array(region),
  mappings: z.array(mapping),
});
export const totalsSchema: z.ZodType<Totals> = z.object({
  reads: number,
  writes: number,
  lost: number,
  lossEvents: number,
  damages: number,
  failed: number,
  marks: number,
  notices: number,
  interrupts: number,
  resets: number,
  lastTimeNs: number,
});
const readsAndWrites = z.object({ reads: number, writes: number });

export const checkpointSchema: z.ZodType<Checkpoint> = z.object({
  position: positionSchema,
  journalTaken: number,
  attribution: z.object({
    devices: z.object({ states: z.array(deviceState), regionCount: number }),
    nextMapId: number,
    announced: numbers,
    describedRegions: numbers,
    warnedRegions: numbers,
    lastTimeNs: number,
    deviceAccesses: number,
    elsewhere: number,
    configWrites: number,
  }),
  counts: z.object({
    tables: tablesSchema,
    totals: totalsSchema,
    regions: z.array(readsAndWrites.nullable()),
    registers: z.object({
      region: numbers,
      offset: numbers,
      reads: numbers,
      writes: numbers,
      width: numbers,
      valueLo: numbers,
      valueHi: numbers,
    }),
  }),
  coverage: z.array(coverage),
  notes: z.array(text),
  trapped: z.record(text, text),
  headStated: z.boolean(),
  source: z.unknown(),
  outputBytes: numbers,
  leftOut: numbers,
  userLogBytes: number,
});
