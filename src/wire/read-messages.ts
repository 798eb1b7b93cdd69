import { MmioError } from '../base/errors.ts';
import type { CoverageStatement } from '../model/coverage.ts';
import { BAR_SLOTS, type Device, type Mapping, type Region } from '../model/device.ts';
import type { Counters, RecordingEvent, RecordingHeader } from '../model/events.ts';
import {
  CLOCK,
  COVERAGE_PHASE,
  COVERAGE_STATE,
  INTERRUPT_TYPE,
  REGION_KIND,
  SOURCE,
  wordOf,
} from './enums.ts';
import { MAX_DEVICES, MAX_REGIONS } from '../model/tables.ts';
import type { mmiobridge } from './generated/types.ts';
import type { FrameMessage } from './messages.ts';

// A field that is not there reads as null or undefined and stands for its default, as in all of
// protobuf. All functions here throw MmioError `damaged` for what cannot be.

type Maybe<T> = T | null | undefined;

/** Fields of `Frame` that hold an event each. */
type EventField = Exclude<
  keyof FrameMessage,
  'header' | 'accessBatch' | 'bridge' | 'body' | '$unknowns'
>;

/** How each kind of frame is read; one that is missing here does not compile. */
const READERS: {
  readonly [Field in EventField]: (message: NonNullable<FrameMessage[Field]>) => RecordingEvent;
} = {
  device: ({ timeNs, device }) => ({
    kind: 'device',
    timeNs: whole(timeNs),
    device: toDevice(present(device)),
  }),
  region: ({ timeNs, region }) => ({
    kind: 'region',
    timeNs: whole(timeNs),
    region: toRegion(present(region)),
  }),
  map: ({ timeNs, mapping }) => ({
    kind: 'map',
    timeNs: whole(timeNs),
    mapping: toMapping(present(mapping)),
  }),
  unmap: ({ timeNs, mapId }) => ({ kind: 'unmap', timeNs: whole(timeNs), mapId: mapId ?? 0 }),
  mark: ({ timeNs, text }) => ({ kind: 'mark', timeNs: whole(timeNs), text: text ?? '' }),
  notice: ({ timeNs, text }) => ({ kind: 'notice', timeNs: whole(timeNs), text: text ?? '' }),
  loss: ({ timeNs, count, durationNs, reason }) => ({
    kind: 'loss',
    timeNs: whole(timeNs),
    count: whole(count),
    durationNs: whole(durationNs),
    reason: reason ?? '',
  }),
  failed: ({ timeNs, write, region, offset, width, value, reason }) => ({
    kind: 'failed',
    timeNs: whole(timeNs),
    write: write ?? false,
    region: index(region, MAX_REGIONS, 'region'),
    offset: whole(offset),
    width: widthOf(width),
    value: hexOf(value),
    reason: reason ?? '',
  }),
  interrupt: ({ timeNs, device, type, vector }) => ({
    kind: 'interrupt',
    timeNs: whole(timeNs),
    device: device ?? 0,
    type: wordOf(INTERRUPT_TYPE, type, 'interrupt type'),
    vector: vector ?? 0,
  }),
  reset: ({ timeNs, device }) => ({ kind: 'reset', timeNs: whole(timeNs), device: device ?? 0 }),
  vmState: ({ timeNs, state }) => ({
    kind: 'vm-state',
    timeNs: whole(timeNs),
    state: state ?? '',
  }),
  coverage: ({ timeNs, statement }) => ({
    kind: 'coverage',
    timeNs: whole(timeNs),
    statement: toCoverage(present(statement)),
  }),
  damage: ({ timeNs, position, reason, evidence }) => {
    const { segment, offset } = present(position);
    return {
      kind: 'damage',
      timeNs: whole(timeNs),
      position: { segment: segment ?? 0, offset: whole(offset) },
      reason: reason ?? '',
      evidence: evidence ?? '',
    };
  },
  line: ({ timeNs, text }) => ({ kind: 'line', timeNs: whole(timeNs), text: text ?? '' }),
  end: ({ timeNs, complete, counters }) => ({
    kind: 'end',
    timeNs: whole(timeNs),
    complete: complete ?? false,
    counters: toCounters(present(counters)),
  }),
};

export const EVENT_FIELDS = Object.keys(READERS) as readonly EventField[];

/** The event in a frame; undefined for a frame of anything else. */
export function messageToEvent(frame: FrameMessage): RecordingEvent | undefined {
  for (const field of EVENT_FIELDS) {
    const message = frame[field];
    if (message === undefined || message === null) continue;
    // The table holds field and reader together; the compiler loses that in a loop.
    const read = READERS[field] as (message: unknown) => RecordingEvent;
    return read(message);
  }
  return undefined;
}

export function messageToHeader(
  message: mmiobridge.v1.RecordingHeader.$Properties,
): RecordingHeader {
  return {
    tool: message.tool ?? '',
    source: wordOf(SOURCE, message.source, 'source'),
    startSec: whole(message.startSec),
    startNs: message.startNs ?? 0,
    textBaseSec: finite(message.textBaseSec),
    clock: wordOf(CLOCK, message.clock, 'clock'),
    qemuVersion: message.qemuVersion ?? '',
    argv: message.argv ?? [],
  };
}

function toDevice(message: mmiobridge.v1.Device.$Properties): Device {
  const bars = message.bars ?? [];
  if (bars.length !== BAR_SLOTS) throw damaged(`a device with ${bars.length} BAR slots`);
  return {
    id: index(message.id, MAX_DEVICES, 'device'),
    name: message.name ?? '',
    type: message.type ?? '',
    qemuId: message.qemuId ?? '',
    hostAddress: message.hostAddress ?? '',
    bus: message.bus ?? 0,
    devfn: message.devfn ?? 0,
    vendorId: message.vendorId ?? 0,
    deviceId: message.deviceId ?? 0,
    classCode: message.classCode ?? 0,
    irq: message.irq ?? 0,
    bars: bars.map(({ start, flags, sizeBytes }) => ({
      start: whole(start),
      flags: flags ?? 0,
      sizeBytes: whole(sizeBytes),
    })),
    driver: message.driver ?? '',
  };
}

function toRegion(message: mmiobridge.v1.Region.$Properties): Region {
  return {
    id: index(message.id, MAX_REGIONS, 'region'),
    device: message.device ?? 0,
    kind: wordOf(REGION_KIND, message.kind, 'region kind'),
    bar: message.bar ?? 0,
    name: message.name ?? '',
    sizeBytes: whole(message.sizeBytes),
  };
}

function toMapping(message: mmiobridge.v1.Mapping.$Properties): Mapping {
  return {
    mapId: message.mapId ?? 0,
    region: message.region ?? 0,
    regionOffset: whole(message.regionOffset),
    gpa: whole(message.gpa),
    lengthBytes: whole(message.lengthBytes),
    virt: message.virt ?? '',
  };
}

function toCoverage(message: mmiobridge.v1.CoverageStatement.$Properties): CoverageStatement {
  return {
    phase: wordOf(COVERAGE_PHASE, message.phase, 'coverage phase'),
    ranges: (message.ranges ?? []).map((range) => ({
      device: range.device ?? '',
      region: range.region ?? '',
      offset: whole(range.offset),
      lengthBytes: whole(range.lengthBytes),
      state: wordOf(COVERAGE_STATE, range.state, 'coverage state'),
      why: range.why ?? '',
    })),
    notes: message.notes ?? [],
  };
}

function toCounters(message: mmiobridge.v1.Counters.$Properties): Counters {
  return {
    reads: whole(message.reads),
    writes: whole(message.writes),
    lost: whole(message.lost),
    lossEvents: whole(message.lossEvents),
    damagedLines: whole(message.damagedLines),
    otherLines: Object.fromEntries(
      (message.otherLines ?? []).map(({ name, count }) => [name ?? '', whole(count)]),
    ),
  };
}

function whole(value: Maybe<number>): number {
  const number = value ?? 0;
  if (!Number.isInteger(number)) throw damaged(`the number ${number} where a whole one belongs`);
  return number;
}

/** Ids are indices: a large one would cost as much as all before it. */
function index(value: Maybe<number>, limit: number, what: string): number {
  const id = value ?? 0;
  if (id >= limit) throw damaged(`${what} ${id}; there are at most ${limit}`);
  return id;
}

function widthOf(value: Maybe<number>): number {
  const width = value ?? 0;
  if (![1, 2, 4, 8].includes(width)) throw damaged(`an access of ${width} bytes`);
  return width;
}

function hexOf(value: Maybe<string>): string {
  const text = value ?? '';
  if (!/^0x[0-9a-f]{1,16}$/.test(text)) throw damaged('a value that is no number');
  return text;
}

function finite(value: Maybe<number>): number {
  const number = value ?? 0;
  if (!Number.isFinite(number)) throw damaged(`the number ${number}`);
  return number;
}

function present<T>(value: Maybe<T>): T {
  if (value === undefined || value === null) throw damaged('a part of it is not there');
  return value;
}

function damaged(evidence: string): MmioError {
  return new MmioError('damaged', 'a frame has an impossible value', { evidence });
}
