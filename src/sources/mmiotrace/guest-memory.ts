import { hex } from '../../base/format.ts';
import { BAR_SLOTS, guestAddress, ROM_SLOT } from '../../model/device.ts';
import type { Bar, Device, Mapping, Region } from '../../model/device.ts';
import type { PciFunction } from './line-grammar.ts';

/** `AccessBatch.region` has 16 bits; one is kept for `everywhere`. */
const MAX_REGIONS = 65_535;

/** What a mapid stands for: addresses `start` up to, not including, `end`. */
export interface IoremapWindow {
  readonly start: number;
  readonly end: number;
  readonly region: number;
  /** Added to an address it gives the offset in the region. */
  readonly toOffset: number;
}

const NO_WINDOW: IoremapWindow = { start: 0, end: 0, region: -1, toOffset: 0 };

/** The devices, regions and mappings that the lines read so far have told of. */
export class GuestMemory {
  readonly #devices: Device[] = [];
  readonly #deviceByFunction = new Map<number, number>();
  /** By device and slot, or by start and length: regions are announced once and used again. */
  readonly #regions = new Map<string, Region>();
  readonly #windows = new Map<number, IoremapWindow>();
  #everywhere: Region | undefined;
  #regionCount = 0;

  /** A device that is new, or (same bus and devfn) has moved. */
  addFunction(fields: PciFunction): Device {
    const key = (fields.bus << 8) | fields.devfn;
    const id = this.#deviceByFunction.get(key) ?? this.#devices.length;
    const device = deviceOf(id, fields);
    this.#devices[id] = device;
    this.#deviceByFunction.set(key, id);
    return device;
  }

  /** A MAP line; `region` is there if it has to be announced first. */
  addMapping(
    mapId: number,
    gpa: number,
    lengthBytes: number,
    virt: string,
  ): { readonly region: Region | undefined; readonly mapping: Mapping } {
    const place = this.#barAt(gpa, lengthBytes) ?? this.#ioremapWindowAt(gpa, lengthBytes);
    const { region, regionOffset } = place;
    const toOffset = regionOffset - gpa;
    this.#windows.set(mapId, { start: gpa, end: gpa + lengthBytes, region: region.id, toOffset });
    const mapping = { mapId, region: region.id, regionOffset, gpa, lengthBytes, virt };
    return { region: place.isNew ? region : undefined, mapping };
  }

  window(mapId: number): IoremapWindow {
    return this.#windows.get(mapId) ?? NO_WINDOW;
  }

  /** -1 before `announceEverywhere`. */
  get everywhereId(): number {
    return this.#everywhere?.id ?? -1;
  }

  /**
   * The region of accesses that lie in no MAP of theirs: all of physical memory, so that the offset
   * is the address. Undefined if it was announced before.
   */
  announceEverywhere(): Region | undefined {
    if (this.#everywhere !== undefined) return undefined;
    const id = this.#regionCount++;
    this.#everywhere = { id, device: -1, kind: 'window', bar: -1, name: 'mem', sizeBytes: 0 };
    return this.#everywhere;
  }

  #barAt(gpa: number, lengthBytes: number): Place | undefined {
    for (const device of this.#devices) {
      const slot = device.bars.findIndex(
        (bar, index) =>
          bar.start > 0 &&
          (index === ROM_SLOT || (bar.flags & 1) === 0) &&
          gpa >= bar.start &&
          gpa + lengthBytes <= bar.start + bar.sizeBytes,
      );
      const bar = device.bars[slot];
      if (bar === undefined) continue;
      const place = this.#region(`${device.id} ${slot} ${bar.sizeBytes}`, {
        device: device.id,
        kind: slot === ROM_SLOT ? 'rom' : 'bar',
        bar: slot,
        name: slot === ROM_SLOT ? 'ROM' : `BAR${slot}`,
        sizeBytes: bar.sizeBytes,
      });
      // No more ids: then all of memory will do.
      return place && { ...place, regionOffset: gpa - bar.start };
    }
    return undefined;
  }

  #ioremapWindowAt(gpa: number, lengthBytes: number): Place {
    const name = `mem@${hex(gpa)}+${hex(lengthBytes)}`;
    const fields = { device: -1, kind: 'window', bar: -1, name, sizeBytes: lengthBytes } as const;
    const place = this.#region(name, fields);
    if (place !== undefined) return { ...place, regionOffset: 0 };
    const announced = this.announceEverywhere();
    const region = announced ?? this.#everywhere;
    if (region === undefined) throw new TypeError('unreachable: announced above');
    return { region, isNew: announced !== undefined, regionOffset: gpa };
  }

  #region(key: string, fields: Omit<Region, 'id'>): Omit<Place, 'regionOffset'> | undefined {
    const known = this.#regions.get(key);
    if (known !== undefined) return { region: known, isNew: false };
    if (this.#regionCount >= MAX_REGIONS) return undefined;
    const region = { id: this.#regionCount++, ...fields };
    this.#regions.set(key, region);
    return { region, isNew: true };
  }
}

interface Place {
  readonly region: Region;
  readonly isNew: boolean;
  readonly regionOffset: number;
}

function deviceOf(id: number, fields: PciFunction): Device {
  const { starts, sizes, ...rest } = fields;
  return {
    id,
    name: guestAddress(fields),
    type: '',
    qemuId: '',
    hostAddress: '',
    classCode: 0,
    ...rest,
    bars: Array.from({ length: BAR_SLOTS }, (_, slot) =>
      barOf(starts[slot] ?? 0, sizes[slot] ?? 0),
    ),
  };
}

/** A port BAR has its flags in bits 0 and 1, and may start at any even port (0x3f6). */
function barOf(printed: number, sizeBytes: number): Bar {
  const flags = printed % 2 === 1 ? 1 : printed % 16;
  return { start: printed - flags, flags, sizeBytes };
}
