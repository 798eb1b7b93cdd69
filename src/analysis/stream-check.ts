import type { AccessBatch } from '../model/access-batch.ts';
import type { RecordingEvent, RecordingHeader } from '../model/events.ts';
import { isBatch, type StreamItem } from '../model/stream.ts';
import { MAX_DEVICES, MAX_MAPPINGS, MAX_REGIONS } from '../model/tables.ts';

/**
 * Whether the items of a recording speak of devices, regions and mappings that it has told of. Who
 * reads keeps what it complains of: the frame that told of them may be the one that is damaged.
 */
export class StreamCheck {
  readonly #devices = new Uint8Array(MAX_DEVICES);
  readonly #regions = new Uint8Array(MAX_REGIONS);
  readonly #mappings = new Set<number>([0]);
  /** The text of a kernel may begin in the middle: it has accesses through mappings of before. */
  readonly #anyMapping: boolean;

  constructor(header: RecordingHeader | undefined) {
    this.#anyMapping = header?.source === 'mmiotrace';
  }

  /** What is wrong with the next item, for people; each thing is told once. */
  check(item: StreamItem): string | undefined {
    return isBatch(item) ? this.#batch(item) : this.#event(item);
  }

  #event(event: RecordingEvent): string | undefined {
    switch (event.kind) {
      case 'device':
        this.#devices[event.device.id] = 1;
        return undefined;
      case 'region': {
        const { id, device } = event.region;
        this.#regions[id] = 1;
        return device < 0 ? undefined : this.#device(device);
      }
      case 'map': {
        this.#mappings.add(event.mapping.mapId);
        return this.#region(event.mapping.region);
      }
      case 'unmap':
        return this.#mapping(event.mapId);
      case 'interrupt':
      case 'reset':
        return this.#device(event.device);
      case 'failed':
        return this.#region(event.region);
      default:
        return undefined;
    }
  }

  #batch({ length, region, mapId }: AccessBatch): string | undefined {
    let complaint: string | undefined;
    let lastRegion = -1;
    let lastMapId = -1;
    for (let row = 0; row < length; row++) {
      if (region[row] !== lastRegion) {
        lastRegion = region[row]!;
        complaint ??= this.#region(lastRegion);
      }
      if (mapId[row] === lastMapId) continue;
      lastMapId = mapId[row]!;
      complaint ??= this.#mapping(lastMapId);
    }
    return complaint;
  }

  #device(id: number): string | undefined {
    if (this.#devices[id] === 1) return undefined;
    this.#devices[id] = 1;
    return `device ${id}, of which nothing was told`;
  }

  #region(id: number): string | undefined {
    if (this.#regions[id] === 1) return undefined;
    this.#regions[id] = 1;
    return `region ${id}, of which nothing was told`;
  }

  #mapping(id: number): string | undefined {
    if (this.#anyMapping || this.#mappings.has(id)) return undefined;
    // Which are not kept without end.
    if (this.#mappings.size < MAX_MAPPINGS) this.#mappings.add(id);
    return `mapping ${id}, of which nothing was told`;
  }
}
