import { AccessBatch, type Allocate, type SourcePosition } from '../model/access-batch.ts';
import type { LossEvent } from '../model/events.ts';

/** What a trace line says its access went to. Interned: lines carry an index into a list of these. */
export type RawTarget =
  /** `vfio_region_*`: QEMU's name of the device, and the VFIO region index (BAR 0 to 5). */
  | { readonly kind: 'vfio-region'; readonly device: string; readonly region: number }
  | { readonly kind: 'vfio-config'; readonly device: string }
  | { readonly kind: 'vfio-rom'; readonly device: string }
  /** `memory_region_ops_*`: QEMU's MemoryRegion, by its host pointer (hex) and its name. */
  | { readonly kind: 'memory-region'; readonly pointer: string; readonly name: string }
  /** KVM's tracepoints: a guest-physical address, or a port. */
  | { readonly kind: 'guest-address' };

/**
 * Accesses as QEMU's log prints them, before the session has attributed them. Of the columns of
 * `AccessBatch`, `offset` holds the printed address (within the region for vfio, else as
 * memory_region_ops prints it), `cpu` what memory_region_ops prints (`NO_CPU` for vfio), and
 * `region`, `mapId`, `space` and `pc*` are not filled in.
 */
export class RawBatch extends AccessBatch {
  /** Index into the decoder's `targets`. */
  readonly target: Uint32Array;
  /** Thread id of the QEMU thread that logged the line; 0 where the log does not say. */
  readonly thread: Int32Array;

  constructor(capacity: number, allocate: Allocate = (bytes) => new ArrayBuffer(bytes)) {
    super(capacity, allocate);
    this.target = new Uint32Array(allocate(capacity * 4));
    this.thread = new Int32Array(allocate(capacity * 4));
  }

  /** What a decoder has filled in of one row, over another. */
  copyRow(from: number, to: number): void {
    this.timeNs[to] = this.timeNs[from]!;
    this.op[to] = this.op[from]!;
    this.width[to] = this.width[from]!;
    this.offset[to] = this.offset[from]!;
    this.valueLo[to] = this.valueLo[from]!;
    this.valueHi[to] = this.valueHi[from]!;
    this.cpu[to] = this.cpu[from]!;
    this.target[to] = this.target[from]!;
    this.thread[to] = this.thread[from]!;
    this.pcLo[to] = this.pcLo[from]!;
    this.pcHi[to] = this.pcHi[from]!;
  }

  /** Drops all other rows; whether any is left. */
  keepRows(isKept: (row: number) => boolean): boolean {
    let out = 0;
    for (let row = 0; row < this.length; row++) if (isKept(row)) this.copyRow(row, out++);
    this.length = out;
    return out > 0;
  }

  /** Adds the rows [from, to) of another, all that a decoder has filled in; there must be room. */
  append(source: RawBatch, from: number, to: number): void {
    const { timeNs, op, width, offset, valueLo, valueHi, cpu, target, thread } = this;
    let out = this.length;
    for (let row = from; row < to; row++, out++) {
      timeNs[out] = source.timeNs[row]!;
      op[out] = source.op[row]!;
      width[out] = source.width[row]!;
      offset[out] = source.offset[row]!;
      valueLo[out] = source.valueLo[row]!;
      valueHi[out] = source.valueHi[row]!;
      cpu[out] = source.cpu[row]!;
      target[out] = source.target[row]!;
      thread[out] = source.thread[row]!;
    }
    this.length = out;
  }
}

/** Lines that are not accesses. `timeNs` is NaN where the line has no time stamp. */
export type TraceEvent =
  | {
      /** `pci_update_mappings_*`: the guest maps or unmaps a BAR (6: the option ROM). */
      readonly kind: 'mapping';
      readonly timeNs: number;
      readonly added: boolean;
      readonly type: string;
      readonly bus: number;
      readonly devfn: number;
      readonly bar: number;
      readonly gpa: number;
      readonly sizeBytes: number;
    }
  | {
      readonly kind: 'region-setup';
      readonly timeNs: number;
      readonly device: string;
      readonly region: number;
      readonly sizeBytes: number;
    }
  | {
      readonly kind: 'interrupt';
      readonly timeNs: number;
      readonly device: string;
      readonly type: 'intx' | 'msi';
      readonly vector: number;
    }
  | {
      /** `vfio_ioeventfd_init`: writes of one value to one place end in the kernel from here on. */
      readonly kind: 'ioeventfd';
      readonly timeNs: number;
      /** Name of QEMU's MemoryRegion. */
      readonly region: string;
      readonly offset: number;
      /** Hex, with 0x. */
      readonly value: string;
    }
  | { readonly kind: 'msix-use'; readonly timeNs: number; readonly device: string }
  | { readonly kind: 'reset'; readonly timeNs: number; readonly device: string }
  | LossEvent
  | {
      readonly kind: 'damage';
      readonly timeNs: number;
      readonly position: SourcePosition;
      readonly reason: string;
      readonly evidence: string;
    };
