import { join } from 'node:path';
import {
  blockersOf,
  isVfioDriver,
  readIommuGroups,
  type IommuGroup,
} from '../host/iommu-groups.ts';
import { idsOf, readPciDevices, type HostPciDevice } from '../host/pci.ts';
import { Check, type CheckResult } from './check.ts';
import type { System } from './system.ts';

/**
 * Whether devices of the host can be given to a guest: each named one, or each that is bound to
 * vfio-pci where none is named.
 *
 * @param addresses full ones: `0000:01:00.0`
 */
export function checkDevices(system: System, addresses: readonly string[]): readonly CheckResult[] {
  const all = readPciDevices(system.root);
  const bound = all.filter(({ driver }) => isVfioDriver(driver)).map(({ address }) => address);
  const named = addresses.length > 0 ? addresses : bound;
  if (named.length === 0) {
    return [
      new Check('device', 'device').warning(
        'none is bound to vfio-pci, and none was named: groups could not be looked at',
        'lspci -nn; mmiobridge doctor --device ADDRESS',
      ),
    ];
  }
  const found = named.map((address) => all.find((device) => device.address === address));
  const groups = readIommuGroups(system.root, all);
  const ids = new Set(found.flatMap((device) => device?.iommuGroup ?? []));
  return [
    ...named.map((address, index) => checkDevice(address, found[index], groups)),
    ...[...ids].flatMap((id) => [
      checkGroup(groups, id),
      // The file is there as long as VFIO has a device of the group.
      ...(all.some((it) => it.iommuGroup === id && isVfioDriver(it.driver))
        ? [checkNode(system, String(id))]
        : []),
    ]),
    ...(bound.length > 0 ? [checkNode(system, 'vfio')] : []),
  ];
}

function checkDevice(
  address: string,
  device: HostPciDevice | undefined,
  groups: readonly IommuGroup[],
): CheckResult {
  const check = new Check('device', `device ${address}`);
  if (device === undefined) return check.failure('the host has no such PCI device', 'lspci -D');
  const what = `${idsOf(device)} ${device.deviceName ?? ''}`.trim();
  if (device.bridge) {
    return check.failure(`${what} is a bridge: VFIO takes none`, 'name the device behind it');
  }
  const { driver } = device;
  if (device.iommuGroup === undefined) {
    return check.failure(`${what} is in no IOMMU group`, 'switch the IOMMU on first');
  }
  if (isVfioDriver(driver)) return check.ok(`${what}, bound to ${driver ?? ''}`);
  return check.failure(
    `${what} is bound to ${driver ?? 'no driver'}, not to vfio-pci`,
    bindCommand(groups.find(({ id }) => id === device.iommuGroup)),
  );
}

function checkGroup(groups: readonly IommuGroup[], id: number): CheckResult {
  const check = new Check('iommu-group', `IOMMU group ${id}`);
  const group = groups.find((each) => each.id === id);
  const blockers = group === undefined ? [] : blockersOf(group);
  const members = group?.members.map(({ address }) => address).join(', ') ?? 'gone meanwhile';
  if (blockers.length === 0) return check.ok(`viable: ${members}`);
  return check.failure(
    `not viable: ${blockers.map((it) => `${it.address} (${idsOf(it)}) is bound to ${it.driver ?? ''}`).join(', ')}`,
    bindCommand(group),
    'or put the device into another slot: all of a group goes to one guest, or to none',
  );
}

/** What of a group VFIO does not have yet, in one command: it goes to the guest together. */
function bindCommand(group: IommuGroup | undefined): string {
  const members = group?.members ?? [];
  const rest = members.filter(({ bridge, driver }) => !bridge && !isVfioDriver(driver));
  return `mmiobridge bind ${rest.map(({ address }) => address).join(' ')}`;
}

/** The file by which QEMU opens a group; `vfio` is the one by which it opens VFIO itself. */
function checkNode(system: System, name: string): CheckResult {
  const path = `/dev/vfio/${name}`;
  const check = new Check('vfio-node', path);
  const fault = system.accessFault(join(system.root, path));
  const { user } = system;
  if (fault === undefined) return check.ok(`open to ${user.name}`);
  if (fault === 'ENOENT') {
    return check.failure('not there', 'modprobe vfio-pci; in a container, pass /dev/vfio in');
  }
  return check.failure(
    `not open to ${user.name} (${fault})`,
    `chown ${user.name} ${path}`,
    `for good: echo 'SUBSYSTEM=="vfio", OWNER="${user.name}"' >/etc/udev/rules.d/70-vfio.rules`,
  );
}
