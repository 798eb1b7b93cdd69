import type { Device, Mapping, Region } from './device.ts';
import type { RecordingEvent } from './events.ts';

/** More than any VM has: whoever reads a recording of somebody else's has memory to lose. */
export const MAX_DEVICES = 65_536;
export const MAX_REGIONS = 65_536;
export const MAX_MAPPINGS = 2 ** 20;

/** A `Tables` as plain JSON. */
export interface TablesSnapshot {
  readonly devices: readonly Device[];
  readonly regions: readonly Region[];
  readonly mappings: readonly Mapping[];
}

/**
 * Devices, regions and mappings as the stream has told of them so far. Everything that reads a
 * stream keeps its own and feeds it each event, so that it is never ahead of or behind its batch.
 */
export class Tables {
  readonly devices: Device[] = [];
  readonly regions: Region[] = [];
  readonly mappings = new Map<number, Mapping>();

  constructor(snapshot?: TablesSnapshot) {
    if (snapshot === undefined) return;
    for (const device of snapshot.devices) this.devices[device.id] = device;
    for (const region of snapshot.regions) this.regions[region.id] = region;
    for (const mapping of snapshot.mappings) this.mappings.set(mapping.mapId, mapping);
  }

  apply(event: RecordingEvent): void {
    if (event.kind === 'device') this.devices[event.device.id] = event.device;
    else if (event.kind === 'region') this.regions[event.region.id] = event.region;
    else if (event.kind === 'map') this.mappings.set(event.mapping.mapId, event.mapping);
  }

  /** Name of a device, for people. */
  deviceName(id: number): string {
    return this.devices[id]?.name ?? `device ${id}`;
  }

  snapshot(): TablesSnapshot {
    return {
      devices: this.devices.filter(Boolean),
      regions: this.regions.filter(Boolean),
      mappings: [...this.mappings.values()],
    };
  }
}
