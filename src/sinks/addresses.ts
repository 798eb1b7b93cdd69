import type { RecordingEvent } from '../model/events.ts';
import type { Tables } from '../model/tables.ts';

/** The guest-physical address (or I/O port) of an access, from its mapping. */
export class Addresses {
  readonly #tables: Tables;
  /** The mapping of the access before: most have the same. -1: none yet. */
  #mapId = -1;
  #region = -1;
  /** Added to an offset in `#region` it gives the address. */
  #toAddress = 0;

  constructor(tables: Tables) {
    this.#tables = tables;
  }

  /** To be told of every event, after the tables. */
  apply(event: RecordingEvent): void {
    if (event.kind === 'map') this.#mapId = -1;
  }

  /** -1 where it is not known: no mapping, or one of another region, which says nothing here. */
  of(mapId: number, region: number, offset: number): number {
    if (mapId !== this.#mapId) this.#turnTo(mapId);
    return region === this.#region ? offset + this.#toAddress : -1;
  }

  #turnTo(mapId: number): void {
    const mapping = this.#tables.mappings.get(mapId);
    this.#mapId = mapId;
    this.#region = mapping?.region ?? -1;
    this.#toAddress = mapping === undefined ? 0 : mapping.gpa - mapping.regionOffset;
  }
}
