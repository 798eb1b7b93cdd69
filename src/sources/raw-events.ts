import type { LossEvent } from '../model/events.ts';
import type { SourcePosition } from '../model/position.ts';

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

/** Lines that are not accesses. `timeNs` is NaN where the line has no time stamp. */
export type RawEvent =
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
  | {
      /** QEMU could not do an access, and said so. A read is in no other line: it stands before this. */
      readonly kind: 'failed';
      readonly timeNs: number;
      readonly write: boolean;
      readonly target: RawTarget;
      readonly address: number;
      readonly width: number;
      readonly valueLo: number;
      readonly valueHi: number;
      /** The system's words. */
      readonly reason: string;
    }
  | {
      /** `pci_cfg_write`: a write to the configuration space of any function, emulated or not. */
      readonly kind: 'config-write';
      readonly timeNs: number;
      /** QEMU's name of the device: its type. */
      readonly type: string;
      readonly bus: number;
      readonly devfn: number;
      readonly offset: number;
      readonly value: number;
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
