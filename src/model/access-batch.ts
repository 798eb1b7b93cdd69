/** What an access did. `unknown`: mmiotrace saw an instruction that it could not decode. */
export const Op = { read: 0, write: 1, unknown: 2 } as const;

/** Where an access went: memory-mapped, I/O port, or PCI configuration space. */
export const Space = { mmio: 0, pio: 1, config: 2 } as const;

/** `mapId` of an access whose region has no known guest-physical address. */
export const NO_MAPPING = 0;

/** `cpu` of an access whose vCPU no source saw. */
export const NO_CPU = -1;

/** How far a source has been read: segment number (1 and up, or 0 for a plain file) and byte. */
export interface SourcePosition {
  readonly segment: number;
  readonly offset: number;
}

/** Memory of so many bytes, zeroed. */
export type Allocate = (lengthBytes: number) => ArrayBufferLike;

/**
 * A few thousand accesses as columns; row `i` is one access. Batches are reused: whoever is handed
 * one has done with it when its `write` returns, or when the promise that it returned settles.
 */
export class AccessBatch {
  readonly capacity: number;
  length = 0;

  /** Nanoseconds since the session began; an exact integer. May go back a little between vCPUs. */
  readonly timeNs: Float64Array;
  /** `Op` */
  readonly op: Uint8Array;
  /** `Space` */
  readonly space: Uint8Array;
  /** Bytes: 1, 2, 4, 8 (16 from the plugin); 0 for `Op.unknown`. */
  readonly width: Uint8Array;
  /** `Region.id` */
  readonly region: Uint16Array;
  /** `Mapping.mapId`, or `NO_MAPPING`. */
  readonly mapId: Uint32Array;
  /** Bytes from the start of the region; an exact integer. */
  readonly offset: Float64Array;
  /** The value's low 32 bits, masked to the width. For `Op.unknown` the three opcode bytes. */
  readonly valueLo: Uint32Array;
  /** The value's bits 32 to 63. */
  readonly valueHi: Uint32Array;
  /** vCPU index, or `NO_CPU`. */
  readonly cpu: Int16Array;
  /** Guest instruction pointer, low and high half; 0 where no source saw it. */
  readonly pcLo: Uint32Array;
  readonly pcHi: Uint32Array;

  /** Where the source stands after this batch, if it can be resumed. */
  position: SourcePosition | undefined;

  /** @param allocate gives each column its memory: threads may share it */
  constructor(capacity: number, allocate: Allocate = (bytes) => new ArrayBuffer(bytes)) {
    this.capacity = capacity;
    this.timeNs = new Float64Array(allocate(capacity * 8));
    this.op = new Uint8Array(allocate(capacity));
    this.space = new Uint8Array(allocate(capacity));
    this.width = new Uint8Array(allocate(capacity));
    this.region = new Uint16Array(allocate(capacity * 2));
    this.mapId = new Uint32Array(allocate(capacity * 4));
    this.offset = new Float64Array(allocate(capacity * 8));
    this.valueLo = new Uint32Array(allocate(capacity * 4));
    this.valueHi = new Uint32Array(allocate(capacity * 4));
    this.cpu = new Int16Array(allocate(capacity * 2));
    this.pcLo = new Uint32Array(allocate(capacity * 4));
    this.pcHi = new Uint32Array(allocate(capacity * 4));
  }
}
