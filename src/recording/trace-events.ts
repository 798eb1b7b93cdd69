import type { ArgvDevice } from '../machine/argv-user.ts';
import type { DeviceState } from './devices.ts';
import { isPassedThrough } from './devices.ts';

/** Where the guest has its BARs: wanted in every recording. */
const MAPPINGS = 'pci_update_mappings_*';
/** What QEMU's vfio code says of a passed-through device. */
const VFIO = [
  'vfio_region_read',
  'vfio_region_write',
  'vfio_region_setup',
  'vfio_pci_read_config',
  'vfio_pci_write_config',
  'vfio_pci_reset',
  'vfio_msi_interrupt',
  'vfio_intx_interrupt',
  'vfio_msix_vector_do_use',
  'vfio_rom_read',
];
/** Every access to every emulated device: it cannot be narrowed inside QEMU. */
const EMULATED = 'memory_region_ops_*';

function eventsFor(vfio: boolean, emulated: boolean): string[] {
  return [MAPPINGS, ...(vfio ? VFIO : []), ...(emulated ? [EMULATED] : [])];
}

/**
 * The trace events for a selection, before QEMU runs: from its `-device` options alone. Those of
 * vfio are always there, for a device that is plugged in later.
 */
export function eventsForArgv(
  devices: readonly ArgvDevice[],
  selection: readonly string[],
): string[] {
  const vfio = devices.filter(({ driver }) => driver.startsWith('vfio-'));
  const named = (name: string) =>
    vfio.some(({ id, host }) => id === name || host === name || host === `0000:${name}`);
  return eventsFor(true, !selection.every(named));
}

/** The trace events for the devices that were selected in a running QEMU. */
export function eventsForDevices(selected: readonly DeviceState[]): string[] {
  const vfio = selected.some(({ device }) => isPassedThrough(device));
  return eventsFor(vfio, !selected.every(({ device }) => isPassedThrough(device)));
}
