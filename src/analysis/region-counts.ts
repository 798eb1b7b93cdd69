import { Op, type AccessBatch } from '../model/access-batch.ts';
import type { Tables } from '../model/tables.ts';
import type { Analysis } from './analysis.ts';

export interface ReadsAndWrites {
  readonly reads: number;
  readonly writes: number;
}

/** Accesses by `Region.id`; null for a region that has none. */
export type RegionTraffic = readonly (ReadsAndWrites | null)[];

export class RegionCounts implements Analysis<RegionTraffic> {
  readonly #regions: ({ reads: number; writes: number } | undefined)[];

  /** @param from traffic to go on from */
  constructor(from: RegionTraffic = []) {
    this.#regions = from.map((counts) => (counts === null ? undefined : { ...counts }));
  }

  batch({ length, region, op }: AccessBatch): void {
    // PERF: rows of one region come in runs.
    for (let row = 0; row < length;) {
      const id = region[row]!;
      const first = row;
      let writes = 0;
      for (; row < length && region[row] === id; row++) if (op[row] === Op.write) writes++;
      const counts = (this.#regions[id] ??= { reads: 0, writes: 0 });
      counts.writes += writes;
      counts.reads += row - first - writes;
    }
  }

  event(): void {}

  result(): RegionTraffic {
    return Array.from(this.#regions, (counts) => (counts === undefined ? null : { ...counts }));
  }
}

/** Accesses by the name of the device. */
export function accessesByDevice(traffic: RegionTraffic, tables: Tables): Record<string, number> {
  const devices: Record<string, number> = {};
  for (const region of tables.regions) {
    if (region === undefined) continue;
    const name = tables.deviceName(region.device);
    const { reads, writes } = traffic[region.id] ?? { reads: 0, writes: 0 };
    devices[name] = (devices[name] ?? 0) + reads + writes;
  }
  return devices;
}
