import type { Tables } from '../model/tables.ts';
import type { Region } from '../model/device.ts';
import type { RecordingEvent } from '../model/events.ts';

/** Names are kept to this many characters, so that a line has a known greatest length. */
const MAX_NAME = 200;

/** A region's owner and name, as far as the stream has told. */
export interface RegionName {
  readonly device: string | undefined;
  readonly region: string;
}

/** Of one region there are at most this many fragments. */
const VARIANTS = 16;

/**
 * The part of a line that names device and region, made once for each region, in each variant that
 * is asked for, and kept as bytes.
 */
export class RegionFragments {
  readonly #tables: Tables;
  readonly #make: (name: RegionName, variant: number) => string;
  readonly #cache: Uint8Array[] = [];

  constructor(tables: Tables, make: (name: RegionName, variant: number) => string) {
    this.#tables = tables;
    this.#make = make;
  }

  /** `region` is a `Region.id`, `variant` from 0 to 15 means what it means to the maker. */
  get(region: number, variant: number): Uint8Array {
    const key = region * VARIANTS + variant;
    return (this.#cache[key] ??= Buffer.from(this.#make(this.nameOf(region), variant), 'utf8'));
  }

  /** To be told of every event: a device may get another name. */
  apply(event: RecordingEvent): void {
    if (event.kind === 'device' || event.kind === 'region') this.#cache.length = 0;
  }

  nameOf(id: number): RegionName {
    const region: Region | undefined = this.#tables.regions[id];
    if (region === undefined) return { device: undefined, region: `region${id}` };
    const owner = region.device < 0 ? undefined : this.#tables.devices[region.device]?.name;
    return { device: owner?.slice(0, MAX_NAME), region: region.name.slice(0, MAX_NAME) };
  }
}
