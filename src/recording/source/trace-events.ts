import { hasMsixTable } from '../../machine/qom-pci.ts';
import type { SeenOfQemu } from '../../machine/coverage.ts';
import type { ArgvDevice } from '../../machine/argv-user.ts';
import { isPassedThrough } from '../../model/device.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { DeviceState } from '../../attribution/device-state.ts';

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
  'vfio_ioeventfd_init',
];
/** Where the guest's own marks are looked for. */
const CONFIG_WRITES = 'pci_cfg_write';
/** What the QEMU plugin cannot tell of. */
export const BESIDE_PLUGIN: readonly string[] = [
  MAPPINGS,
  CONFIG_WRITES,
  ...VFIO.filter((event) => !/^vfio_(region_(read|write)|rom_read)$/.test(event)),
];
/** Every access to every emulated device: it cannot be narrowed inside QEMU. */
const EMULATED = 'memory_region_ops_*';

interface Wanted {
  readonly vfio: boolean;
  readonly emulated: boolean;
  readonly marks: boolean;
}

function eventsFor({ vfio, emulated, marks }: Wanted): string[] {
  return [
    MAPPINGS,
    ...(marks ? [CONFIG_WRITES] : []),
    ...(vfio ? VFIO : []),
    ...(emulated ? [EMULATED] : []),
  ];
}

/** Those of any recording, whatever its devices. */
export const ALL_EVENTS: readonly string[] = eventsFor({ vfio: true, emulated: true, marks: true });

/**
 * The trace events for a selection, before QEMU runs: from its `-device` options alone. Those of
 * vfio are always there, for a device that is plugged in later.
 */
export function eventsForArgv(
  devices: readonly ArgvDevice[],
  selection: readonly string[],
  marks: boolean,
): string[] {
  const vfio = devices.filter(({ driver }) => driver.startsWith('vfio-'));
  const named = (name: string) =>
    vfio.some(({ id, host }) => id === name || host === name || host === `0000:${name}`);
  return eventsFor({ vfio: true, emulated: !selection.every(named), marks });
}

/**
 * The trace events for the devices that were selected in a running QEMU: of a passed-through one
 * with MSI-X all of QEMU's own, since only they tell of the table. Throws what `QmpClient.execute`
 * throws.
 */
export async function eventsForDevices(
  qmp: QmpClient,
  selected: readonly DeviceState[],
  marks: boolean,
): Promise<string[]> {
  const vfio = selected.filter(({ device }) => isPassedThrough(device));
  const tables = await Promise.all(vfio.map(({ qomPath }) => hasMsixTable(qmp, qomPath)));
  const emulated = vfio.length < selected.length || tables.includes(true);
  return eventsFor({ vfio: vfio.length > 0, emulated, marks });
}

/** What these events tell of QEMU's own parts of passed-through devices. */
export function seenOfQemu(events: readonly string[]): SeenOfQemu {
  return events.includes(EMULATED) ? 'tables' : 'none';
}
