/** What the IOMMU keeps apart: Documentation/driver-api/vfio.rst of the kernel. */
import { join } from 'node:path';
import { readPciDevices, type HostPciDevice } from './pci.ts';
import { readNames } from './sysfs.ts';

/** The least that can be given to a guest: what is in one group can reach each other's memory. */
export interface IommuGroup {
  readonly id: number;
  readonly members: readonly HostPciDevice[];
  /** A member that is not a PCI device, by its name: a platform device. VFIO for PCI cannot take it. */
  readonly otherMembers: readonly string[];
}

/**
 * All groups, by number; none where no IOMMU is on. `root` is the directory in which `sys` is;
 * `devices` may be given if they have been read. Throws as readPciDevices.
 */
export function readIommuGroups(
  root = '/',
  devices: readonly HostPciDevice[] = readPciDevices(root),
): readonly IommuGroup[] {
  const byAddress = new Map(devices.map((device) => [device.address, device]));
  const groups = join(root, 'sys/kernel/iommu_groups');
  const ids = readNames(groups).filter((name) => /^\d+$/.test(name));
  return ids
    .map((name) => {
      const names = readNames(join(groups, name, 'devices'));
      return {
        id: Number(name),
        members: names.map((each) => byAddress.get(each)).filter((each) => each !== undefined),
        otherMembers: names.filter((each) => !byAddress.has(each)),
      };
    })
    .toSorted((a, b) => a.id - b.id);
}

/**
 * The members whose drivers keep a group from being given to a guest. Empty: the group is viable.
 * Bridges do not count, nor members without a driver, nor those that VFIO's drivers hold.
 */
export function blockersOf(group: IommuGroup): readonly HostPciDevice[] {
  return group.members.filter(({ bridge, driver }) => !bridge && !leavesDmaAlone(driver));
}

/** vfio-pci, and those made from it for a device (`mlx5_vfio_pci`). */
export function isVfioDriver(driver: string | undefined): boolean {
  return driver !== undefined && /(?:^|[-_])vfio[-_]pci$/.test(driver);
}

/** Drivers that the kernel lets share a group with a guest's device (`driver_managed_dma`). */
function leavesDmaAlone(driver: string | undefined): boolean {
  return driver === undefined || isVfioDriver(driver) || driver === 'pci-stub';
}
