import { AccessBatch, type Allocate, type ColumnsOf } from '../model/access-batch.ts';

const RAW_COLUMNS = {
  /** Index into the decoder's `targets`. */
  target: Uint32Array,
  /** Thread id of the QEMU thread that made the access; 0 where the source does not say. */
  thread: Int32Array,
} as const;

/**
 * Accesses as a source has them, before attribution. Of the columns of `AccessBatch`, `offset`
 * holds the address as the source has it (within the region for vfio, else as memory_region_ops
 * prints it, or guest-physical), `cpu` what the source tells of it (`NO_CPU` for vfio), and
 * `region`, `mapId` and `space` are not filled in.
 */
export class RawBatch extends (AccessBatch as new (
  ...args: ConstructorParameters<typeof AccessBatch>
) => AccessBatch & ColumnsOf<typeof RAW_COLUMNS>) {
  constructor(capacity: number, allocate?: Allocate) {
    super(capacity, allocate, RAW_COLUMNS);
  }

  /** Drops all other rows; whether any is left. */
  keepRows(isKept: (row: number) => boolean): boolean {
    let out = 0;
    for (let row = 0; row < this.length; row++) if (isKept(row)) this.copyRow(row, out++);
    this.length = out;
    return out > 0;
  }
}
