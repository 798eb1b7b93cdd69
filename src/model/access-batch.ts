import type { SourcePosition } from './position.ts';

/** What an access did. `unknown`: mmiotrace saw an instruction that it could not decode. */
export const Op = { read: 0, write: 1, unknown: 2 } as const;

/** Where an access went: memory-mapped, I/O port, or PCI configuration space. */
export const Space = { mmio: 0, pio: 1, config: 2 } as const;

/** `mapId` of an access whose region has no known guest-physical address. */
export const NO_MAPPING = 0;

/** `cpu` of an access whose vCPU no source saw. */
export const NO_CPU = -1;

/** Memory of so many bytes, zeroed. */
export type Allocate = (lengthBytes: number) => ArrayBufferLike;

/** The columns of a batch and the arrays that hold them: the one place that lists them. */
const ACCESS_COLUMNS = {
  /** Nanoseconds since the session began; an exact integer. May go back a little between vCPUs. */
  timeNs: Float64Array,
  /** `Op` */
  op: Uint8Array,
  /** `Space` */
  space: Uint8Array,
  /** Bytes: 1, 2, 4, 8 (16 from the plugin); 0 for `Op.unknown`. */
  width: Uint8Array,
  /** `Region.id` */
  region: Uint16Array,
  /** `Mapping.mapId`, or `NO_MAPPING`. */
  mapId: Uint32Array,
  /** Bytes from the start of the region; an exact integer. */
  offset: Float64Array,
  /** The value's low 32 bits, masked to the width. For `Op.unknown` the three opcode bytes. */
  valueLo: Uint32Array,
  /** The value's bits 32 to 63. */
  valueHi: Uint32Array,
  /** vCPU index, or `NO_CPU`. */
  cpu: Int16Array,
  /** Guest instruction pointer, low and high half; 0 where no source saw it. */
  pcLo: Uint32Array,
  pcHi: Uint32Array,
} as const;

type Column = Float64Array | Uint32Array | Int32Array | Uint16Array | Int16Array | Uint8Array;
type ColumnTypes = Readonly<
  Record<string, { new (memory: ArrayBufferLike): Column; readonly BYTES_PER_ELEMENT: number }>
>;

/** Columns as the properties of a batch. */
export type ColumnsOf<Types extends ColumnTypes> = {
  readonly [Name in keyof Types]: InstanceType<Types[Name]>;
};

/** What a batch is made of: its rows as columns, each `capacity` long. */
class Columns {
  readonly capacity: number;
  length = 0;
  /** Where the source stands after this batch, if it can be resumed. */
  position: SourcePosition | undefined;
  readonly #columns: readonly Column[];

  constructor(types: ColumnTypes, capacity: number, allocate: Allocate) {
    this.capacity = capacity;
    const columns = Object.entries(types).map(([name, Type]) => {
      const column = new Type(allocate(capacity * Type.BYTES_PER_ELEMENT));
      return [name, column] as const;
    });
    Object.assign(this, Object.fromEntries(columns));
    this.#columns = columns.map(([, column]) => column);
  }

  /** Adds the rows [from, to) of a batch with the same columns; there must be room. */
  append(source: this, from: number, to: number): void {
    const at = this.length;
    for (const [index, column] of this.#columns.entries()) {
      const other = source.#columns[index]!;
      // PERF: for a row or two, a view costs more than the copy.
      if (to - from < 8)
        for (let row = from; row < to; row++) column[at + row - from] = other[row]!;
      else column.set(other.subarray(from, to), at);
    }
    this.length = at + to - from;
  }

  /** Row `from` over row `to`. */
  copyRow(from: number, to: number): void {
    for (const column of this.#columns) column[to] = column[from]!;
  }
}

/**
 * A few thousand accesses as columns; row `i` is one access. Batches are reused: whoever is handed
 * one has done with it when its `write` returns, or when the promise that it returned settles.
 */
export class AccessBatch extends (Columns as new (
  types: ColumnTypes,
  capacity: number,
  allocate: Allocate,
) => Columns & ColumnsOf<typeof ACCESS_COLUMNS>) {
  /**
   * @param allocate gives each column its memory: threads may share it
   * @param more columns that a batch of another kind has beside these
   */
  constructor(
    capacity: number,
    allocate: Allocate = (bytes) => new ArrayBuffer(bytes),
    more: ColumnTypes = {},
  ) {
    super({ ...ACCESS_COLUMNS, ...more }, capacity, allocate);
  }
}
