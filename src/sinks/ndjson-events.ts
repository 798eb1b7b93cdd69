import { hex } from '../base/format.ts';
import type { Device, Region } from '../model/device.ts';
import type { RecordingEvent, RecordingHeader } from '../model/events.ts';
import type { Tables } from '../model/tables.ts';

/** Raised when a field changes its meaning or goes away; new fields and types may come any time. */
const NDJSON_VERSION = 1;

/** The first line of a recording. */
export function headerObject(header: RecordingHeader): object {
  return { type: 'header', format: 'mmiobridge', version: NDJSON_VERSION, ...header };
}

/** Everything that is not an access, as docs/ndjson.schema.json has it; names in place of ids. */
export function eventObject(event: RecordingEvent, tables: Tables): object {
  const head = { type: event.kind, t: event.timeNs };
  switch (event.kind) {
    case 'device':
      return { ...head, ...deviceFields(event.device) };
    case 'region':
      return { ...head, ...regionFields(event.region, tables) };
    case 'map': {
      const { mapId, region, regionOffset, gpa, lengthBytes, virt } = event.mapping;
      return {
        ...head,
        mapId,
        ...regionNames(tables.regions[region], tables),
        offset: hex(regionOffset),
        gpa: hex(gpa),
        length: hex(lengthBytes),
        virt,
      };
    }
    case 'unmap':
      return { ...head, mapId: event.mapId };
    case 'mark':
    case 'notice':
    case 'line':
      return { ...head, text: event.text };
    case 'loss': {
      const count = event.count < 0 ? null : event.count;
      return { ...head, count, durationNs: event.durationNs, reason: event.reason };
    }
    case 'failed': {
      const { write, region, offset, width, value, reason } = event;
      return {
        ...head,
        op: write ? 'W' : 'R',
        ...regionNames(tables.regions[region], tables),
        offset: hex(offset),
        width,
        value,
        reason,
      };
    }
    case 'interrupt': {
      const device = tables.deviceName(event.device);
      return { ...head, device, interrupt: event.type, vector: event.vector };
    }
    case 'reset':
      return { ...head, device: tables.deviceName(event.device) };
    case 'vm-state':
      return { ...head, state: event.state };
    case 'coverage': {
      const { phase, ranges, notes } = event.statement;
      const fields = ranges.map(({ offset, lengthBytes, ...range }) => ({
        ...range,
        offset: hex(offset),
        length: hex(lengthBytes),
      }));
      return { ...head, phase, ranges: fields, notes };
    }
    case 'damage': {
      const { position, reason, evidence } = event;
      return { ...head, segment: position.segment, byte: position.offset, reason, evidence };
    }
    case 'end':
      return { ...head, complete: event.complete, counters: event.counters };
  }
}

function deviceFields(device: Device): object {
  return {
    device: device.name,
    model: device.type,
    qemuId: device.qemuId,
    hostAddress: device.hostAddress,
    bus: device.bus,
    devfn: device.devfn,
    vendorId: hex(device.vendorId),
    deviceId: hex(device.deviceId),
    classCode: hex(device.classCode),
    irq: device.irq,
    bars: device.bars.map(({ start, flags, sizeBytes }) => ({
      start: hex(start),
      flags,
      size: hex(sizeBytes),
    })),
    driver: device.driver,
  };
}

function regionFields(region: Region, tables: Tables): object {
  const bar = region.bar < 0 ? null : region.bar;
  return {
    ...regionNames(region, tables),
    kind: region.kind,
    bar,
    size: hex(region.sizeBytes),
  };
}

function regionNames(region: Region | undefined, tables: Tables): object {
  if (region === undefined) return { device: null, region: null };
  const device = region.device < 0 ? null : tables.deviceName(region.device);
  return { device, region: region.name };
}
