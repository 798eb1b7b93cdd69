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
import type { mmiobridge } from './generated/types.ts';
import type { FrameMessage } from './messages.ts';

// A field that is not there reads as null or undefined and stands for its default, as in all of
// protobuf. All functions here throw MmioError `damaged` for what cannot be.

type Maybe<T> = T | null | undefined;

/** The event in a frame; undefined for a frame of the session header, of accesses, or of nothing. */
export function messageToEvent(frame: FrameMessage): RecordingEvent | undefined {
  if (frame.device) {
    const { timeNs, device } = frame.device;
    return { kind: 'device', timeNs: whole(timeNs), device: toDevice(present(device)) };
  }
  if (frame.region) {
    const { timeNs, region } = frame.region;
    return { kind: 'region', timeNs: whole(timeNs), region: toRegion(present(region)) };
  }
  if (frame.map) {
    const { timeNs, mapping } = frame.map;
    return { kind: 'map', timeNs: whole(timeNs), mapping: toMapping(present(mapping)) };
  }
  if (frame.unmap) {
    const { timeNs, mapId } = frame.unmap;
    return { kind: 'unmap', timeNs: whole(timeNs), mapId: mapId ?? 0 };
  }
  if (frame.mark) {
    return { kind: 'mark', timeNs: whole(frame.mark.timeNs), text: frame.mark.text ?? '' };
  }
  if (frame.loss) {
    const { timeNs, count, durationNs, reason } = frame.loss;
    return {
      kind: 'loss',
      timeNs: whole(timeNs),
      count: whole(count),
      durationNs: whole(durationNs),
      reason: reason ?? '',
    };
  }
  if (frame.interrupt) {
    const { timeNs, device, type, vector } = frame.interrupt;
    return {
      kind: 'interrupt',
      timeNs: whole(timeNs),
      device: device ?? 0,
      type: wordOf(INTERRUPT_TYPE, type, 'interrupt type'),
      vector: vector ?? 0,
    };
  }
  if (frame.reset) {
    return { kind: 'reset', timeNs: whole(frame.reset.timeNs), device: frame.reset.device ?? 0 };
  }
  if (frame.vmState) {
    const { timeNs, state } = frame.vmState;
    return { kind: 'vm-state', timeNs: whole(timeNs), state: state ?? '' };
  }
  if (frame.coverage) {
    const { timeNs, statement } = frame.coverage;
    return { kind: 'coverage', timeNs: whole(timeNs), statement: toCoverage(present(statement)) };
  }
  if (frame.damage) {
    const { timeNs, position, reason, evidence } = frame.damage;
    const { segment, offset } = present(position);
    return {
      kind: 'damage',
      timeNs: whole(timeNs),
      position: { segment: segment ?? 0, offset: whole(offset) },
      reason: reason ?? '',
      evidence: evidence ?? '',
    };
  }
  if (frame.line) {
    return { kind: 'line', timeNs: whole(frame.line.timeNs), text: frame.line.text ?? '' };
  }
  if (frame.end) {
    const { timeNs, complete, counters } = frame.end;
    return {
      kind: 'end',
      timeNs: whole(timeNs),
      complete: complete ?? false,
      counters: toCounters(present(counters)),
    };
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
    id: message.id ?? 0,
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
    id: message.id ?? 0,
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
  return new MmioError('damaged', 'a frame says what cannot be', { evidence });
}
