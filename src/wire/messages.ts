import type { CoverageStatement } from '../model/coverage.ts';
import type { Device, Mapping, Region } from '../model/device.ts';
import type { Counters, RecordingEvent, RecordingHeader } from '../model/events.ts';
import {
  CLOCK,
  COVERAGE_PHASE,
  COVERAGE_STATE,
  INTERRUPT_TYPE,
  REGION_KIND,
  SOURCE,
} from './enums.ts';
import { v1 } from './generated/mmiobridge.ts';
import type { mmiobridge } from './generated/types.ts';

/** A `Frame` of proto/mmiobridge.proto as a plain object. */
export type FrameMessage = mmiobridge.v1.Frame.$Properties;

/** The payload of the frame that a recording begins with. */
export function encodeHeader(header: RecordingHeader): Uint8Array {
  return v1.Frame.encode({ header: headerToMessage(header) }).finish();
}

/** The payload of the frame for an event. */
export function encodeEvent(event: RecordingEvent): Uint8Array {
  return v1.Frame.encode(eventToMessage(event)).finish();
}

function eventToMessage(event: RecordingEvent): FrameMessage {
  const { timeNs } = event;
  switch (event.kind) {
    case 'device':
      return { device: { timeNs, device: deviceToMessage(event.device) } };
    case 'region':
      return { region: { timeNs, region: regionToMessage(event.region) } };
    case 'map':
      return { map: { timeNs, mapping: mappingToMessage(event.mapping) } };
    case 'unmap':
      return { unmap: { timeNs, mapId: event.mapId } };
    case 'mark':
      return { mark: { timeNs, text: utf(event.text) } };
    case 'notice':
      return { notice: { timeNs, text: utf(event.text) } };
    case 'loss': {
      const { count, durationNs, reason } = event;
      return { loss: { timeNs, count, durationNs, reason: utf(reason) } };
    }
    case 'failed': {
      const { write, region, offset, width, value, reason } = event;
      const failed = { timeNs, write, region, offset, width, value, reason: utf(reason) };
      return { failed };
    }
    case 'interrupt': {
      const { device, type, vector } = event;
      return { interrupt: { timeNs, device, type: INTERRUPT_TYPE[type], vector } };
    }
    case 'reset':
      return { reset: { timeNs, device: event.device } };
    case 'vm-state':
      return { vmState: { timeNs, state: utf(event.state) } };
    case 'coverage':
      return { coverage: { timeNs, statement: coverageToMessage(event.statement) } };
    case 'damage': {
      const { position, reason, evidence } = event;
      return { damage: { timeNs, position, reason: utf(reason), evidence: utf(evidence) } };
    }
    case 'line':
      return { line: { timeNs, text: utf(event.text) } };
    case 'end': {
      const { complete, counters } = event;
      return { end: { timeNs, complete, counters: countersToMessage(counters) } };
    }
    default:
      return event satisfies never;
  }
}

function headerToMessage(header: RecordingHeader): mmiobridge.v1.RecordingHeader.$Properties {
  return {
    tool: utf(header.tool),
    source: SOURCE[header.source],
    startSec: header.startSec,
    startNs: header.startNs,
    textBaseSec: header.textBaseSec,
    clock: CLOCK[header.clock],
    qemuVersion: utf(header.qemuVersion),
    argv: header.argv.map(utf),
  };
}

function deviceToMessage(device: Device): mmiobridge.v1.Device.$Properties {
  return {
    id: device.id,
    name: utf(device.name),
    type: utf(device.type),
    qemuId: utf(device.qemuId),
    hostAddress: utf(device.hostAddress),
    bus: device.bus,
    devfn: device.devfn,
    vendorId: device.vendorId,
    deviceId: device.deviceId,
    classCode: device.classCode,
    irq: device.irq,
    bars: device.bars.map(({ start, flags, sizeBytes }) => ({ start, flags, sizeBytes })),
    driver: utf(device.driver),
  };
}

function regionToMessage(region: Region): mmiobridge.v1.Region.$Properties {
  return {
    id: region.id,
    device: region.device,
    kind: REGION_KIND[region.kind],
    bar: region.bar,
    name: utf(region.name),
    sizeBytes: region.sizeBytes,
  };
}

function mappingToMessage(mapping: Mapping): mmiobridge.v1.Mapping.$Properties {
  return {
    mapId: mapping.mapId,
    region: mapping.region,
    regionOffset: mapping.regionOffset,
    gpa: mapping.gpa,
    lengthBytes: mapping.lengthBytes,
    virt: utf(mapping.virt),
  };
}

function coverageToMessage(
  statement: CoverageStatement,
): mmiobridge.v1.CoverageStatement.$Properties {
  return {
    phase: COVERAGE_PHASE[statement.phase],
    ranges: statement.ranges.map((range) => ({
      device: utf(range.device),
      region: utf(range.region),
      offset: range.offset,
      lengthBytes: range.lengthBytes,
      state: COVERAGE_STATE[range.state],
      why: utf(range.why),
    })),
    notes: statement.notes.map(utf),
  };
}

function countersToMessage(counters: Counters): mmiobridge.v1.Counters.$Properties {
  const { reads, writes, lost, lossEvents, damagedLines, otherLines } = counters;
  return {
    reads,
    writes,
    lost,
    lossEvents,
    damagedLines,
    otherLines: Object.entries(otherLines).map(([name, count]) => ({ name: utf(name), count })),
  };
}

/** Half a surrogate pair has no UTF-8, and readers refuse the frame that has one. */
function utf(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}
