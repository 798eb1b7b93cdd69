/** Whether a device may be given to vfio-pci, or taken from it, without harm to the host. */
import { join } from 'node:path';
import { MmioError } from '../base/errors.ts';
import { blockersOf, isVfioDriver, readIommuGroups } from './iommu-groups.ts';
import { idsOf, readPciDevices, type HostPciDevice } from './pci.ts';
import { readText } from './sysfs.ts';
import { readDeviceUses, type DeviceUse } from './uses.ts';
import { vfioUsers } from './vfio-users.ts';

/** What stands against binding a device, unless the user insists. */
export interface Objection {
  readonly address: string;
  /** `vda1 is mounted on /` */
  readonly text: string;
  readonly wayOut: string;
}

/** The devices at these full addresses. Throws MmioError `not-found` with what there is. */
export function requireDevices(
  root: string,
  addresses: readonly string[],
): readonly HostPciDevice[] {
  const all = readPciDevices(root);
  return [...new Set(addresses)].map((address) => {
    const device = all.find((each) => each.address === address);
    if (device !== undefined) return device;
    const others = all
      .filter(({ bridge }) => !bridge)
      .map((each) => `${each.address} ${idsOf(each)}`);
    throw new MmioError('not-found', `there is no PCI device ${address}`, {
      evidence: `there is: ${others.join(', ') || 'none'}`,
      hint: 'lspci -nn says what each is',
    });
  });
}

/** Throws MmioError `refused` for what vfio-pci cannot take, whatever the user says. */
export function requireBindable(root: string, device: HostPciDevice): void {
  const { address, bridge, iommuGroup } = device;
  if (bridge) {
    throw new MmioError('refused', `${address} is a PCI bridge, and vfio-pci takes none`, {
      evidence: `its class is 0x${device.classCode.toString(16).padStart(6, '0')}`,
      hint: 'bind the devices behind it; the bridges of a group need not be bound',
    });
  }
  if (iommuGroup !== undefined || worksWithoutIommu(root)) return;
  throw new MmioError('refused', `${address} is in no IOMMU group, and vfio-pci needs one`, {
    evidence: `IOMMU groups of this host: ${readIommuGroups(root).length || 'none, no IOMMU is on'}`,
    hint: 'switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on (Intel)',
  });
}

/** The mode for those who accept that the device can write to all of the memory. */
function worksWithoutIommu(root: string): boolean {
  const path = join(root, 'sys/module/vfio/parameters/enable_unsafe_noiommu_mode');
  return readText(path) === 'Y';
}

export interface BindCandidates {
  readonly devices: readonly HostPciDevice[];
  readonly objections: readonly Objection[];
}

/** What would be bound, and what stands against it. Throws MmioError where VFIO cannot take one. */
export async function findCandidates(
  root: string,
  addresses: readonly string[],
): Promise<BindCandidates> {
  const devices = requireDevices(root, addresses);
  for (const device of devices) requireBindable(root, device);
  return { devices, objections: await objectionsToBind(root, devices) };
}

/** What the host would lose, and what of a group is missing, if these went to vfio-pci together. */
export async function objectionsToBind(
  root: string,
  devices: readonly HostPciDevice[],
): Promise<readonly Objection[]> {
  const chosen = new Set(devices.map(({ address }) => address));
  const groups = readIommuGroups(root);
  const objections: Objection[] = [];
  for (const device of devices.filter(({ driver }) => !isVfioDriver(driver))) {
    const { address, iommuGroup } = device;
    for (const { kind, text } of await readDeviceUses(root, device, chosen)) {
      objections.push({ address, text, wayOut: WAYS_OUT[kind] });
    }
    const group = groups.find(({ id }) => id === iommuGroup);
    const others = group === undefined ? [] : blockersOf(group);
    const missing = others.filter((other) => !chosen.has(other.address));
    const whole = [...chosen, ...missing.map((other) => other.address)].join(' ');
    for (const other of missing) {
      objections.push({
        address,
        text: `${other.address}, which ${other.driver ?? ''} drives, is in its IOMMU group ${iommuGroup}`,
        wayOut: `give the group as a whole (mmiobridge bind ${whole})`,
      });
    }
  }
  return objections;
}

/** What to say where these stand against it. `otherwise`: the last way out. */
export function bindRefusal(objections: readonly Objection[], otherwise: string): MmioError {
  const addresses = new Set(objections.map(({ address }) => address));
  const waysOut = new Set(objections.map(({ wayOut }) => wayOut));
  return new MmioError('refused', `the host uses ${[...addresses].join(', ')}`, {
    evidence: objections.map(({ address, text }) => `${address}: ${text}`).join('\n'),
    hint: [...waysOut, otherwise].join('; '),
  });
}

/** Throws MmioError `refused` for another user. */
export function requireRoot(hint: string): void {
  const uid = process.geteuid?.() ?? 0;
  if (uid === 0) return;
  throw new MmioError('refused', 'only root may give devices to other drivers', {
    evidence: `the effective user id is ${uid}`,
    hint,
  });
}

/** Throws MmioError `refused` while a VM has the device: the kernel would wait for it to let go. */
export function requireLetGo(root: string, device: HostPciDevice): void {
  const users = isVfioDriver(device.driver) ? vfioUsers(root, device) : [];
  if (users.length === 0) return;
  const names = users.map(({ pid, command }) => `process ${pid} (${command})`);
  throw new MmioError('refused', `${device.address} is in use by a VM`, {
    evidence: `${names.join(', ')} has IOMMU group ${device.iommuGroup} open`,
    hint: 'shut the VM down first',
  });
}

const WAYS_OUT: Readonly<Record<DeviceUse['kind'], string>> = {
  disk: 'unmount what is on it and stop its swap, volumes and arrays',
  network: 'reach the host through another network card, with a default route of its own',
  display: 'make another display the primary one in the firmware',
  vm: 'shut the VM down',
};
