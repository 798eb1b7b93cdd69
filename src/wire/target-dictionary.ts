import type { AccessBatch } from '../model/access-batch.ts';
import { MAX_TARGETS } from './columns.ts';

/** Twice as many as there are targets, so that a probe soon meets an empty one. */
const SLOTS = MAX_TARGETS * 2;

/** The distinct pairs of region and mapping of one frame, in order of first access. */
export class TargetDictionary {
  readonly region = new Uint16Array(MAX_TARGETS);
  readonly mapId = new Uint32Array(MAX_TARGETS);
  length = 0;
  /** Index + 1 by hash, 0 where empty. */
  readonly #slots = new Uint16Array(SLOTS);

  clear(): void {
    this.length = 0;
    this.#slots.fill(0);
  }

  /**
   * Writes the index of each row's target to `index[i - from]`. Returns the first row, at most `to`,
   * whose target does not fit any more.
   */
  assign(batch: AccessBatch, from: number, to: number, index: Uint8Array): number {
    const { region: regions, mapId: mapIds } = batch;
    // PERF: most accesses go where the one before went.
    let lastRegion = -1;
    let lastMapId = -1;
    let last = 0;
    for (let row = from; row < to; row++) {
      const region = regions[row]!;
      const mapId = mapIds[row]!;
      if (region !== lastRegion || mapId !== lastMapId) {
        const found = this.#lookUp(region, mapId);
        if (found < 0) return row;
        last = found;
        lastRegion = region;
        lastMapId = mapId;
      }
      index[row - from] = last;
    }
    return to;
  }

  #lookUp(region: number, mapId: number): number {
    let slot = (Math.imul(mapId, 0x9e37_79b1) ^ Math.imul(region, 0x85eb_ca6b)) >>> 23;
    for (;;) {
      const index = this.#slots[slot]! - 1;
      if (index < 0) break;
      if (this.region[index] === region && this.mapId[index] === mapId) return index;
      slot = (slot + 1) % SLOTS;
    }
    if (this.length === MAX_TARGETS) return -1;
    this.region[this.length] = region;
    this.mapId[this.length] = mapId;
    this.#slots[slot] = this.length + 1;
    return this.length++;
  }
}
