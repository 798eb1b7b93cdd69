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

/** An MSI-X table has at most so many. */
const MAX_VECTORS = 2048;

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
  unmap: ({ timeNs, mapId }) => ({ kind: 'unmap', timeNs: whole(timeNs), mapId: size(mapId) }),
  mark: ({ timeNs, text }) => ({ kind: 'mark', timeNs: whole(timeNs), text: text ?? '' }),
  notice: ({ timeNs, text }) => ({ kind: 'notice', timeNs: whole(timeNs), text: text ?? '' }),
  loss: ({ timeNs, count, durationNs, reason }) => ({
    kind: 'loss',
    timeNs: whole(timeNs),
    count: count === -1 ? -1 : size(count),
    durationNs: size(durationNs),
    reason: reason ?? '',
  }),
  failed: ({ timeNs, write, region, offset, width, value, reason }) => ({
    kind: 'failed',
    timeNs: whole(timeNs),
    write: write ?? false,
    region: index(region, MAX_REGIONS, 'region'),
    offset: size(offset),
    width: widthOf(width),
    value: hexOf(value),
    reason: reason ?? '',
  }),
  interrupt: ({ timeNs, device, type, vector }) => ({
    kind: 'interrupt',
    timeNs: whole(timeNs),
    device: index(device, MAX_DEVICES, 'device'),
    type: wordOf(INTERRUPT_TYPE, type, 'interrupt type'),
    vector: index(vector, MAX_VECTORS, 'interrupt vector'),
  }),
  reset: ({ timeNs, device }) => ({
    kind: 'reset',
    timeNs: whole(timeNs),
    device: index(device, MAX_DEVICES, 'device'),
  }),
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
      position: { segment: size(segment), offset: size(offset) },
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
    // -1: not known, behind a bridge.
    bus: within(message.bus, -1, 0xff, 'bus'),
    devfn: within(message.devfn, 0, 0xff, 'devfn'),
    vendorId: within(message.vendorId, 0, 0xffff, 'vendor'),
    deviceId: within(message.deviceId, 0, 0xffff, 'device id'),
    classCode: within(message.classCode, 0, 0xff_ffff, 'class'),
    irq: size(message.irq),
    bars: bars.map(({ start, flags, sizeBytes }) => ({
      start: size(start),
      flags: size(flags),
      sizeBytes: size(sizeBytes),
    })),
    driver: message.driver ?? '',
  };
}

function toRegion(message: mmiobridge.v1.Region.$Properties): Region {
  return {
    id: index(message.id, MAX_REGIONS, 'region'),
    device: within(message.device, -1, MAX_DEVICES - 1, 'device'),
    kind: wordOf(REGION_KIND, message.kind, 'region kind'),
    bar: within(message.bar, -1, BAR_SLOTS - 1, 'BAR'),
    name: message.name ?? '',
    sizeBytes: size(message.sizeBytes),
  };
}

function toMapping(message: mmiobridge.v1.Mapping.$Properties): Mapping {
  return {
    mapId: size(message.mapId),
    region: index(message.region, MAX_REGIONS, 'region'),
    regionOffset: size(message.regionOffset),
    gpa: size(message.gpa),
    lengthBytes: size(message.lengthBytes),
    virt: message.virt ?? '',
  };
}

function toCoverage(message: mmiobridge.v1.CoverageStatement.$Properties): CoverageStatement {
  return {
    phase: wordOf(COVERAGE_PHASE, message.phase, 'coverage phase'),
    ranges: (message.ranges ?? []).map((range) => ({
      device: range.device ?? '',
      region: range.region ?? '',
      offset: size(range.offset),
      lengthBytes: size(range.lengthBytes),
      state: wordOf(COVERAGE_STATE, range.state, 'coverage state'),
      why: range.why ?? '',
    })),
    notes: message.notes ?? [],
  };
}

function toCounters(message: mmiobridge.v1.Counters.$Properties): Counters {
  return {
    reads: size(message.reads),
    writes: size(message.writes),
    lost: size(message.lost),
    lossEvents: size(message.lossEvents),
    damagedLines: size(message.damagedLines),
    otherLines: Object.fromEntries(
      (message.otherLines ?? []).map(({ name, count }) => [name ?? '', size(count)]),
    ),
  };
}

function whole(value: Maybe<number>): number {
  const number = value ?? 0;
  if (!Number.isSafeInteger(number)) {
    throw damaged(`the number ${number} where a whole one belongs`);
  }
  return number;
}

/** An address, a length, a count. */
function size(value: Maybe<number>): number {
  const number = whole(value);
  if (number < 0) throw damaged(`the number ${number}, which cannot be below 0`);
  return number;
}

function within(value: Maybe<number>, least: number, most: number, what: string): number {
  const number = value ?? 0;
  if (number < least || number > most) throw damaged(`${what} ${number}`);
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
