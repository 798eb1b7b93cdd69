import { MmioError } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';

/** A property of vfio-pci (hw/vfio/pci.c) that decides what of a device QEMU sees. */
export interface VfioProperty {
  readonly name: string;
  /** What `on` is good for. */
  readonly why: string;
  /** What does not show while it is off. */
  readonly hides: string;
}

export const NO_MMAP: VfioProperty = {
  name: 'x-no-mmap',
  why: 'each access to a BAR comes to QEMU instead of going to the hardware by itself',
  hides: 'accesses to BARs that are mapped into the guest',
};

/** Where they are off, `vfio_ioeventfd_init` in the log tells when such a short cut is taken. */
export const SHORT_CUTS: readonly VfioProperty[] = [
  {
    name: 'x-no-kvm-ioeventfd',
    why: 'repeated writes to one register come to QEMU instead of ending in the kernel',
    hides: 'writes that QEMU has handed to KVM as an ioeventfd',
  },
  {
    name: 'x-no-vfio-ioeventfd',
    why: 'the same, for writes that the kernel would pass on to the device',
    hides: 'writes that the kernel passes on to the device as an ioeventfd',
  },
];

export const INTERRUPTS: readonly VfioProperty[] = ['intx', 'msi', 'msix'].map((type) => ({
  name: `x-no-kvm-${type}`,
  why: `${type} interrupts pass through QEMU and are recorded (--no-irq leaves them to KVM)`,
  hides: `${type} interrupts`,
}));

export const VFIO_PROPERTIES: readonly VfioProperty[] = [NO_MMAP, ...SHORT_CUTS, ...INTERRUPTS];

/** How they stand for a device of a running QEMU, by name, as far as it has them. */
export async function readVfioProperties(
  qmp: QmpClient,
  qomPath: string,
): Promise<ReadonlyMap<string, boolean>> {
  const values = new Map<string, boolean>();
  for (const { name: property } of VFIO_PROPERTIES) {
    try {
      values.set(property, (await qmp.execute('qom-get', { path: qomPath, property })) === true);
    } catch (error) {
      // vfio-user-pci has none of them.
      if (!(error instanceof MmioError && error.code === 'refused')) throw error;
    }
  }
  return values;
}
