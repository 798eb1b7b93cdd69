/**
 * The host's PCI functions, as sysfs tells of them: Documentation/ABI/testing/sysfs-bus-pci and
 * Documentation/PCI/sysfs-pci.rst of the kernel.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { vendorDevice } from '../base/format.ts';
import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import { PciIds } from './pci-ids.ts';
import { linkName, readNames, readText } from './sysfs.ts';

export interface HostPciDevice {
  /** `0000:01:00.0` */
  readonly address: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** 24 bits: base class, subclass, programming interface. */
  readonly classCode: number;
  readonly revision: number;
  /** undefined without the system's pci.ids, or if it does not know it. */
  readonly vendorName: string | undefined;
  readonly deviceName: string | undefined;
  /** The driver that it is bound to. */
  readonly driver: string | undefined;
  /** The only driver that may bind to it. */
  readonly driverOverride: string | undefined;
  /** undefined where no IOMMU translates for it. */
  readonly iommuGroup: number | undefined;
  /** How the kernel can reset it, first choice first; undefined before Linux 5.15, which tells not. */
  readonly resetMethods: readonly string[] | undefined;
  /** The display that firmware used. */
  readonly bootVga: boolean;
  /** A bridge to another bus: VFIO takes none, and does not mind one in a group. */
  readonly bridge: boolean;
  /** Only those that there are. */
  readonly resources: readonly PciResource[];
}

export interface PciResource {
  /** 0 to 5 are the BARs, 6 is the ROM; then windows of a bridge, or BARs of virtual functions. */
  readonly index: number;
  /** On the host's bus; 0 if the kernel found no place for it. */
  readonly start: number;
  readonly sizeBytes: number;
  /** IORESOURCE_… of linux/ioport.h */
  readonly flags: number;
}

const DEVICES = 'sys/bus/pci/devices';

/**
 * All PCI functions, by address; none where sysfs is not mounted or the machine has no PCI. `root`
 * is the directory in which `sys` and `usr` are.
 *
 * @throws MmioError `damaged` if a file does not read as the kernel writes it
 */
export function readPciDevices(root = '/'): readonly HostPciDevice[] {
  const ids = new PciIds(root);
  const devices = readNames(join(root, DEVICES)).map((address) => readDevice(root, address, ids));
  return devices.filter((device) => device !== undefined);
}

/** One PCI function by its full address; undefined if there is none. Throws as readPciDevices. */
export function readPciDevice(root: string, address: string): HostPciDevice | undefined {
  return readDevice(root, address, new PciIds(root));
}

/** The folder of a PCI function. */
export function pciDevicePath(root: string, address: string): string {
  return join(root, DEVICES, address);
}

/** `0000:01:00.0` of `01:00.0` or of itself; undefined if it is no PCI address. */
export function fullPciAddress(text: string): string | undefined {
  const match = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])$/i.exec(text.trim());
  return match === null ? undefined : `${match[1] ?? '0000'}:${match[2] ?? ''}`.toLowerCase();
}

/** `10de:1b80` */
export function idsOf({ vendorId, deviceId }: HostPciDevice): string {
  return vendorDevice(vendorId, deviceId);
}

/** `1458:3702`, which tells the maker of a card; undefined if there is no such function now. */
export function readSubsystem(root: string, address: string): string | undefined {
  const path = pciDevicePath(root, address);
  const ids = ['subsystem_vendor', 'subsystem_device'].map((name) => readText(join(path, name)));
  if (!ids.every((text) => text !== undefined && /^0x[0-9a-f]{4}$/.test(text))) return undefined;
  return vendorDevice(Number(ids[0]), Number(ids[1]));
}

function readDevice(root: string, address: string, ids: PciIds): HostPciDevice | undefined {
  const path = pciDevicePath(root, address);
  // One that is unplugged just now is not there any more.
  if (!existsSync(join(path, 'vendor'))) return undefined;
  const number = (name: string): number => readNumber(join(path, name));
  const vendorId = number('vendor');
  const deviceId = number('device');
  const classCode = number('class');
  const override = readText(join(path, 'driver_override'));
  const group = linkName(join(path, 'iommu_group'));
  return {
    address,
    vendorId,
    deviceId,
    subsystemVendorId: number('subsystem_vendor'),
    subsystemId: number('subsystem_device'),
    classCode,
    revision: number('revision'),
    vendorName: ids.vendor(vendorId),
    deviceName: ids.device(vendorId, deviceId),
    driver: linkName(join(path, 'driver')),
    driverOverride: override === '' || override === '(null)' ? undefined : override,
    iommuGroup: group === undefined ? undefined : Number(group),
    resetMethods: readResetMethods(path),
    bootVga: readText(join(path, 'boot_vga')) === '1',
    bridge: BRIDGES.has(classCode >>> 8),
    resources: readResources(join(path, 'resource')),
  };
}

/** PCI to PCI, CardBus, and the half-transparent kind: what has a configuration header of its own. */
const BRIDGES: ReadonlySet<number> = new Set([0x0604, 0x0607, 0x0609]);

function readResetMethods(path: string): readonly string[] | undefined {
  const methods = readText(join(path, 'reset_method'));
  if (methods !== undefined) return methods.split(/\s+/).filter((method) => method !== '');
  // A device that cannot be reset has neither file.
  return existsSync(join(path, 'reset')) ? undefined : [];
}

/** Lines of `0xSTART 0xEND 0xFLAGS`, END being the last byte; all 0 where there is none. */
function readResources(path: string): readonly PciResource[] {
  const lines = readText(path)?.split('\n') ?? [];
  const resources = lines.map((line, index) => {
    const fields = /^(0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)$/i.exec(line);
    if (fields === null) throw notSysfs(path, line);
    const [start = 0, last = 0, flags = 0] = fields.slice(1).map(Number);
    return { index, start, sizeBytes: flags === 0 ? 0 : last - start + 1, flags };
  });
  return resources.filter(({ sizeBytes }) => sizeBytes > 0);
}

/** A file of one hexadecimal number; 0 if it is not there. */
function readNumber(path: string): number {
  const text = readText(path) ?? '0x0';
  if (!/^0x[0-9a-f]{1,8}$/i.test(text)) throw notSysfs(path, text);
  return Number(text);
}

function notSysfs(path: string, text: string): MmioError {
  return new MmioError('damaged', `${path} is not what the kernel writes`, {
    evidence: `it says: ${escapeBytes(Buffer.from(text, 'latin1'), 80)}`,
    hint: 'see whether something else than sysfs is mounted there',
  });
}
