import { BAR_SLOTS, NO_BAR, guestAddress, type Device, type Region } from '../model/device.ts';
import type { BarMapping } from './address-space.ts';

/** What is known of one device; `device` is replaced when something new is learned. */
export interface DeviceState {
  device: Device;
  selected: boolean;
  /** By BAR slot. */
  readonly barMappings: (BarMapping | undefined)[];
  /** By BAR slot: the mapping that has the region's mapId; the one before it until it is used. */
  readonly usedMappings: (BarMapping | undefined)[];
  readonly regions: (Region | undefined)[];
  config: Region | undefined;
  usesMsix: boolean;
  /** In QEMU's object tree; empty if not known. */
  qomPath: string;
}

/** A device of which nothing is known but where it is. */
export function newDeviceState(id: number, type: string, bus: number, devfn: number): DeviceState {
  const device: Device = {
    id,
    name: guestAddress({ bus, devfn }),
    type,
    qemuId: '',
    hostAddress: '',
    bus,
    devfn,
    vendorId: 0,
    deviceId: 0,
    classCode: 0,
    irq: 0,
    bars: Array.from({ length: BAR_SLOTS }, () => NO_BAR),
    driver: '',
  };
  return {
    device,
    selected: false,
    barMappings: [],
    usedMappings: [],
    regions: [],
    config: undefined,
    usesMsix: false,
    qomPath: '',
  };
}

/** A `DeviceState` as plain JSON: no holes, and each mapping once. */
export interface DeviceSnapshot {
  readonly device: Device;
  readonly selected: boolean;
  readonly mappings: readonly BarMapping[];
  /** By BAR slot: indices of `mappings`, -1 for none. */
  readonly current: readonly number[];
  readonly used: readonly number[];
  /** By BAR slot. */
  readonly regions: readonly (Region | null)[];
  readonly config: Region | null;
  readonly usesMsix: boolean;
  readonly qomPath: string;
}

export function takeDevice(state: DeviceState): DeviceSnapshot {
  const { device, selected, usesMsix, qomPath } = state;
  const all = [...state.barMappings, ...state.usedMappings].filter((it) => it !== undefined);
  const mappings = [...new Set(all)];
  const indices = (slots: DeviceState['barMappings']) =>
    Array.from(slots, (it) => (it === undefined ? -1 : mappings.indexOf(it)));
  return {
    device,
    selected,
    mappings: mappings.map((mapping) => ({ ...mapping })),
    current: indices(state.barMappings),
    used: indices(state.usedMappings),
    regions: Array.from(state.regions, (region) => region ?? null),
    config: state.config ?? null,
    usesMsix,
    qomPath,
  };
}

export function restoreDevice(snapshot: DeviceSnapshot): DeviceState {
  const { device, selected, usesMsix, qomPath } = snapshot;
  const mappings = snapshot.mappings.map((mapping) => ({ ...mapping }));
  return {
    device,
    selected,
    barMappings: snapshot.current.map((index) => mappings[index]),
    usedMappings: snapshot.used.map((index) => mappings[index]),
    regions: snapshot.regions.map((region) => region ?? undefined),
    config: snapshot.config ?? undefined,
    usesMsix,
    qomPath,
  };
}
