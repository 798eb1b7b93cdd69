/**
 * The devices of a recording and where their BARs are, as far as the source and QMP have told.
 * Decides which accesses are of interest; knows nothing of rows and batches.
 */
import { hex } from '../base/format.ts';
import {
  BAR_SLOTS,
  NO_BAR,
  ROM_SLOT,
  answersTo,
  guestAddress,
  type Bar,
  type Device,
  type Mapping,
  type Region,
} from '../model/device.ts';
import { NO_MAPPING } from '../model/access-batch.ts';
import type { PciFunction } from '../machine/inventory.ts';
import type { RawEvent } from '../sources/raw-events.ts';
import { AddressSpace, type BarMapping } from './address-space.ts';
import { deviceAt, findDevice, namelessVfio, placelessVfio } from './device-identity.ts';
import {
  newDeviceState,
  restoreDevice,
  takeDevice,
  type DeviceSnapshot,
  type DeviceState,
} from './device-state.ts';
import { isSelected, type Selection } from './selection.ts';

const IO_BAR = 1;
/** Where the log alone tells of a BAR, its space shows by its address: I/O ports end here. */
const IO_SPACE_BYTES = 0x10000;

/** Where a BAR is, by the user's word. */
export interface BarBase {
  readonly device: string;
  readonly bar: number;
  readonly gpa: number;
  readonly sizeBytes: number | undefined;
}

type MappingLine = Extract<RawEvent, { kind: 'mapping' }>;

export interface DevicesSnapshot {
  readonly states: readonly DeviceSnapshot[];
  readonly regionCount: number;
}

export class Devices {
  readonly states: DeviceState[] = [];
  readonly addresses = new AddressSpace();
  #regionCount = 0;
  readonly #selection: Selection;
  /** `device slot` of BARs that the user placed without a size. */
  readonly #guessedSizes = new Set<string>();

  /** @param selection what `--device` named; empty: all vfio devices. */
  constructor(selection: Selection, snapshot?: DevicesSnapshot) {
    this.#selection = selection;
    if (snapshot === undefined) return;
    this.states.push(...snapshot.states.map(restoreDevice));
    this.#regionCount = snapshot.regionCount;
    for (const state of this.states) {
      for (const barMapping of state.barMappings) if (barMapping) this.#activate(state, barMapping);
    }
  }

  snapshot(): DevicesSnapshot {
    return { states: this.states.map(takeDevice), regionCount: this.#regionCount };
  }

  get selected(): readonly DeviceState[] {
    return this.states.filter((state) => state.selected);
  }

  /** Where QEMU's log does not tell two places of selected devices apart. */
  get doubts(): string[] {
    return this.addresses.doubts.flatMap(({ hidden, taken }) => {
      const [from, to] = [this.#placeText(hidden), this.#placeText(taken)];
      if (from === undefined || to === undefined) return [];
      return [
        `QEMU's log does not tell accesses to ${from} from those to ${to}: all are taken for the latter`,
      ];
    });
  }

  #placeText(gpa: number): string | undefined {
    const mapping = this.addresses.mappingAt(gpa);
    const state = mapping && this.states[mapping.region.device];
    if (mapping === undefined || state === undefined) return undefined;
    return `${state.device.name} ${mapping.region.name}+${hex(gpa - mapping.gpa)}`;
  }

  /** Whether some device is called by this name. */
  answers(name: string): boolean {
    return this.states.some(({ device }) => answersTo(device, name));
  }

  /** Takes over what QMP says now: ids, addresses on buses, and the BARs not yet known. */
  learn(functions: readonly PciFunction[]): void {
    for (const found of functions) {
      const state = findDevice(this.states, found) ?? this.#add(found.type, found.bus, found.devfn);
      const { qomPath, bars, ...facts } = found;
      state.qomPath = qomPath;
      const before = state.device;
      this.#update(state, {
        ...before,
        ...facts,
        name: found.qemuId || found.hostAddress || guestAddress(found),
        bars: bars.map((bar, slot) => {
          const known = before.bars[slot] ?? NO_BAR;
          return known.start !== 0 ? { ...bar, start: known.start } : bar;
        }),
      });
      for (const [slot, bar] of bars.entries()) {
        if (bar.start !== 0 && state.barMappings[slot] === undefined) this.#place(state, slot, bar);
      }
    }
  }

  /** As `learn`, where no log tells of BARs that move: each is where QMP says it is now. */
  follow(functions: readonly PciFunction[]): void {
    this.learn(functions);
    for (const found of functions) {
      const state = findDevice(this.states, found);
      if (state === undefined) continue;
      for (const [slot, bar] of found.bars.entries()) {
        if (bar.start !== 0) this.#place(state, slot, bar);
      }
    }
  }

  /** The vfio device that QEMU's log calls by this name; made if it was not known. */
  vfio(name: string): DeviceState {
    const known = this.states.find((s) => s.device.hostAddress === name);
    if (known !== undefined) return known;
    const only = namelessVfio(this.states);
    if (only !== undefined) {
      this.#update(only, { ...only.device, name, hostAddress: name });
      return only;
    }
    const address = /^(?:[0-9a-f]{4}:)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/.exec(name);
    const [, bus = '0', slot = '0', fn = '0'] = address ?? [];
    const state = this.#add('', parseInt(bus, 16), (parseInt(slot, 16) << 3) | Number(fn));
    this.#update(state, { ...state.device, name, hostAddress: name });
    return state;
  }

  #add(type: string, bus: number, devfn: number): DeviceState {
    const state = newDeviceState(this.states.length, type, bus, devfn);
    this.states.push(state);
    this.#update(state, state.device);
    return state;
  }

  #update(state: DeviceState, device: Device): void {
    this.#setDevice(state, device);
    const was = state.selected;
    state.selected = isSelected(this.#selection, device);
    if (state.selected && !was) {
      for (const barMapping of state.barMappings) if (barMapping) this.#activate(state, barMapping);
    }
  }

  /** Where the BARs of vfio devices are that nobody could name yet: sizes of vfio_region_setup. */
  setRegionSize(name: string, slot: number, sizeBytes: number): void {
    if (slot >= BAR_SLOTS) return;
    const state = this.vfio(name);
    const guessed = this.#guessedSizes.delete(`${state.device.id} ${slot}`);
    if (guessed || (state.device.bars[slot]?.sizeBytes ?? 0) === 0) {
      const bar = { ...(state.device.bars[slot] ?? NO_BAR), sizeBytes };
      if (bar.start === 0) this.#setBar(state, slot, bar);
      else this.#place(state, slot, bar);
    }
  }

  /** What configuration space answered at an offset: ids, class and interrupt line. */
  learnConfig(state: DeviceState, offset: number, width: number, value: number): void {
    const { device } = state;
    if (offset === 0 && width >= 2 && device.vendorId === 0) {
      const deviceId = width === 4 ? value >>> 16 : device.deviceId;
      this.#update(state, { ...device, vendorId: value & 0xffff, deviceId });
    } else if (offset === 2 && width === 2 && device.deviceId === 0) {
      this.#update(state, { ...device, deviceId: value });
    } else if (offset === 8 && width === 4 && device.classCode === 0) {
      this.#update(state, { ...device, classCode: value >>> 8 });
    }
  }

  /** True for a mapping of a function that nobody has told of. */
  isUnknown(line: MappingLine): boolean {
    return deviceAt(this.states, line) === undefined;
  }

  /** The function of this type at a guest address. */
  at(place: Pick<MappingLine, 'bus' | 'devfn' | 'type'>): DeviceState | undefined {
    return deviceAt(this.states, place);
  }

  map(line: MappingLine): void {
    const state = deviceAt(this.states, line) ?? this.#adopt(line) ?? this.#addMapped(line);
    if (!line.added) return;
    const io = line.gpa + line.sizeBytes <= IO_SPACE_BYTES;
    const known = state.device.bars[line.bar] ?? NO_BAR;
    const flags = known.flags === 0 && io ? IO_BAR : known.flags;
    this.#place(state, line.bar, { start: line.gpa, flags, sizeBytes: line.sizeBytes });
  }

  #adopt(line: MappingLine): DeviceState | undefined {
    if (!line.type.startsWith('vfio-')) return undefined;
    const state = placelessVfio(this.states, line.bar, line.sizeBytes);
    if (state === undefined) return undefined;
    this.#update(state, { ...state.device, type: line.type, bus: line.bus, devfn: line.devfn });
    return state;
  }

  #addMapped(line: MappingLine): DeviceState {
    const state = this.#add(line.type, line.bus, line.devfn);
    this.#update(state, { ...state.device, type: line.type });
    return state;
  }

  /** Puts a BAR at an address; the same place again is the same barMapping. */
  #place(state: DeviceState, slot: number, bar: Bar): void {
    const before = state.barMappings[slot];
    this.#setBar(state, slot, bar);
    const isHere = (barMapping: BarMapping | undefined) =>
      barMapping !== undefined &&
      barMapping.gpa === bar.start &&
      barMapping.lengthBytes === bar.sizeBytes;
    if (isHere(before)) return;
    const usedMappings = state.usedMappings[slot];
    const barMapping: BarMapping =
      usedMappings !== undefined && isHere(usedMappings)
        ? usedMappings
        : {
            region: this.region(state, slot, bar.sizeBytes),
            gpa: bar.start,
            lengthBytes: bar.sizeBytes,
            io: (bar.flags & IO_BAR) !== 0,
            mapId: NO_MAPPING,
          };
    state.barMappings[slot] = barMapping;
    if (before !== undefined) this.addresses.remove(before);
    this.#activate(state, barMapping);
  }

  /**
   * A base address that the user gave, for a log that has no mappings. `device` is as the log's
   * vfio lines call it, or the type of an emulated one.
   */
  placeByHand(base: BarBase): void {
    const passedThrough = /:|vfio/.test(base.device);
    const known = this.states.find(({ device }) => answersTo(device, base.device));
    const state = known ?? (passedThrough ? this.vfio(base.device) : this.#add(base.device, 0, 0));
    const bar = state.device.bars[base.bar] ?? NO_BAR;
    let { sizeBytes } = base;
    if (sizeBytes === undefined) {
      sizeBytes = bar.sizeBytes || mostAt(base.gpa);
      if (bar.sizeBytes === 0) this.#guessedSizes.add(`${state.device.id} ${base.bar}`);
    }
    this.#place(state, base.bar, { ...bar, start: base.gpa, sizeBytes });
  }

  /** Whether the size of a BAR is only the most that its address allows. */
  isSizeGuessed(region: Region): boolean {
    return this.#guessedSizes.has(`${region.device} ${region.bar}`);
  }

  /** A device that is told again as it was stays the same object: nothing has to be said again. */
  #setDevice(state: DeviceState, device: Device): void {
    if (JSON.stringify(state.device) !== JSON.stringify(device)) state.device = device;
  }

  #setBar(state: DeviceState, slot: number, bar: Bar): void {
    const bars = state.device.bars.map((other, index) => (index === slot ? bar : other));
    this.#setDevice(state, { ...state.device, bars });
  }

  #activate(state: DeviceState, barMapping: BarMapping): void {
    if (state.selected) this.addresses.add(barMapping);
  }

  /** The region of a BAR slot, made at its first mention. */
  region(state: DeviceState, slot: number, sizeBytes?: number): Region {
    const known = state.regions[slot];
    if (known !== undefined) return known;
    const size = sizeBytes ?? state.device.bars[slot]?.sizeBytes ?? 0;
    const kind = slot === ROM_SLOT ? 'rom' : 'bar';
    const name = slot === ROM_SLOT ? 'ROM' : `BAR${slot}`;
    const region = this.#newRegion(state, kind, slot, name, size);
    state.regions[slot] = region;
    return region;
  }

  configRegion(state: DeviceState): Region {
    state.config ??= this.#newRegion(state, 'config', -1, 'config', 4096);
    return state.config;
  }

  #newRegion(
    state: DeviceState,
    kind: Region['kind'],
    bar: number,
    name: string,
    sizeBytes: number,
  ): Region {
    return { id: this.#regionCount++, device: state.device.id, kind, bar, name, sizeBytes };
  }

  /** Whether vfio_region_* tells of the accesses through a barMapping: its device has a vfio name. */
  hasVfioLines(barMapping: BarMapping): boolean {
    return (this.states[barMapping.region.device]?.device.hostAddress ?? '') !== '';
  }

  mapping(barMapping: BarMapping): Mapping {
    return {
      mapId: barMapping.mapId,
      region: barMapping.region.id,
      regionOffset: 0,
      gpa: barMapping.gpa,
      lengthBytes: barMapping.lengthBytes,
      virt: '0x0',
    };
  }
}

const MOST_BYTES = 2 ** 28;

/** A BAR lies at a multiple of its size: the largest size, within reason, that an address allows. */
function mostAt(gpa: number): number {
  let size = 16;
  while (size < MOST_BYTES && gpa % (size * 2) === 0) size *= 2;
  return size;
}
