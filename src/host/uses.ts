import { diskUses } from './disk-uses.ts';
import { networkUses } from './network-uses.ts';
import type { HostPciDevice } from './pci.ts';
import { vfioUsers } from './vfio-users.ts';

/** Something that the host, or a VM, would miss if the device were taken away. */
export interface DeviceUse {
  readonly kind: 'disk' | 'network' | 'display' | 'vm';
  /** `vda1 is mounted on /` */
  readonly text: string;
}

/**
 * What a device is used for, where those of `together` are taken away with it; `root` is the directory in which `sys`, `proc` and `dev` are. Sees all
 * of it only as root.
 */
export async function readDeviceUses(
  root: string,
  device: HostPciDevice,
  together: Iterable<string> = [],
): Promise<readonly DeviceUse[]> {
  const { address, bootVga, iommuGroup } = device;
  const disks = await diskUses(root, address);
  return [
    ...disks.map((text) => ({ kind: 'disk', text }) as const),
    ...networkUses(root, address, together).map((text) => ({ kind: 'network', text }) as const),
    ...(bootVga
      ? [{ kind: 'display', text: 'it is the display that the host booted on' } as const]
      : []),
    ...vfioUsers(root, device).map(
      ({ pid, command }) =>
        ({ kind: 'vm', text: `process ${pid} (${command}) has group ${iommuGroup} open` }) as const,
    ),
  ];
}
