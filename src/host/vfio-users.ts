/** Which processes hold a device through VFIO: VMs, as a rule. */
import { join } from 'node:path';
import type { HostPciDevice } from './pci.ts';
import { pciDevicePath } from './pci.ts';
import { readLink, readNames, readText } from './sysfs.ts';

export interface VfioUser {
  readonly pid: number;
  /** The kernel's name for it, of 15 characters at most. */
  readonly command: string;
}

/**
 * The processes that have the device's group open, or the device itself (iommufd). As another user
 * than root, only one's own are seen.
 */
export function vfioUsers(root: string, device: HostPciDevice): readonly VfioUser[] {
  const paths = vfioPaths(root, device);
  if (paths.size === 0) return [];
  const pids = readNames(join(root, 'proc')).filter((name) => /^\d+$/.test(name));
  const users = pids.filter((pid) => {
    const fds = join(root, 'proc', pid, 'fd');
    return readNames(fds).some((fd) => paths.has(readLink(join(fds, fd)) ?? ''));
  });
  return users.map((pid) => ({
    pid: Number(pid),
    command: readText(join(root, 'proc', pid, 'comm')) ?? 'unknown',
  }));
}

function vfioPaths(root: string, { address, iommuGroup }: HostPciDevice): ReadonlySet<string> {
  const group = iommuGroup === undefined ? [] : [String(iommuGroup), `noiommu-${iommuGroup}`];
  const own = readNames(join(pciDevicePath(root, address), 'vfio-dev'));
  return new Set([
    ...group.map((name) => `/dev/vfio/${name}`),
    ...own.map((name) => `/dev/vfio/devices/${name}`),
  ]);
}
