/** One base address register, or the option ROM (slot 6), as it stood at one moment. */
export interface Bar {
  /** Guest-physical (or I/O port) address; 0 while unassigned. */
  readonly start: number;
  /** The BAR's low flag bits: 1 I/O port, 4 64-bit, 8 prefetchable. */
  readonly flags: number;
  readonly sizeBytes: number;
}

/** How many slots a `PCIDEV` line has: BAR 0 to 5, then the option ROM. */
export const BAR_SLOTS = 7;
export const ROM_SLOT = 6;

/** A slot of which nothing is known, and the upper half of a 64-bit BAR. */
export const NO_BAR: Bar = { start: 0, flags: 0, sizeBytes: 0 };

/** A PCI function as the guest sees it. */
export interface Device {
  /** Index in `Tables.devices`. */
  readonly id: number;
  /** What the user calls it: QEMU id, host address, or guest address, whichever is known first. */
  readonly name: string;
  /** QEMU's type name, e.g. `vfio-pci`, `e1000e`; empty if unknown. */
  readonly type: string;
  /** `id=` of QEMU's `-device`; empty if it has none. */
  readonly qemuId: string;
  /** `0000:01:00.0` of the passed-through function on the host; empty for emulated ones. */
  readonly hostAddress: string;
  /** Bus of the guest. */
  readonly bus: number;
  /** Device number << 3 | function. */
  readonly devfn: number;
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: class, subclass, programming interface, as far as known. */
  readonly classCode: number;
  readonly irq: number;
  /** `BAR_SLOTS` of them. */
  readonly bars: readonly Bar[];
  /** Name of the guest's driver, where someone knows it. */
  readonly driver: string;
}

/** A BAR or other window of a device that accesses go to. */
export interface Region {
  /** Index in `Tables.regions`. */
  readonly id: number;
  /** `Device.id`, or -1 where the owner is not known. */
  readonly device: number;
  /** `window`: an ioremap of the kernel's own mmiotrace that lies in no known BAR. */
  readonly kind: 'bar' | 'rom' | 'config' | 'window';
  /** 0 to 5; 6 for the ROM; -1 for the others. */
  readonly bar: number;
  readonly name: string;
  readonly sizeBytes: number;
}

/** One lifetime of (a part of) a region at one guest-physical address. */
export interface Mapping {
  /** 1 and up, in order of first access. */
  readonly mapId: number;
  readonly region: number;
  /** Where in the region the mapping begins; 0 for all mappings that QEMU makes. */
  readonly regionOffset: number;
  readonly gpa: number;
  readonly lengthBytes: number;
  /** The guest kernel's virtual address as hex with 0x; `0x0` where nobody saw it. */
  readonly virt: string;
}

/** `00:02.0` */
export function guestAddress(device: { readonly bus: number; readonly devfn: number }): string {
  const bus = device.bus.toString(16).padStart(2, '0');
  const slot = (device.devfn >> 3).toString(16).padStart(2, '0');
  return `${bus}:${slot}.${device.devfn & 7}`;
}

/** What the user may call a device by. */
export const DEVICE_NAMES = {
  'its QEMU id': (device, name) => device.qemuId !== '' && device.qemuId === name,
  'its address on the host': (device, name) => isOnHostAt(device, name),
  'its address in the guest': (device, name) => isInGuestAt(device, name),
  'its type': (device, name) => device.type === name || device.name === name,
} as const satisfies Readonly<Record<string, (device: Device, name: string) => boolean>>;

/** Whether the user calls a device so: host address, QEMU id, guest address, or type. */
export function answersTo(device: Device, name: string): boolean {
  return name !== '' && Object.values(DEVICE_NAMES).some((fits) => fits(device, name));
}

/** Whether it is its address on the host, with its domain or without. */
export function isOnHostAt({ hostAddress }: Device, address: string): boolean {
  return hostAddress !== '' && (hostAddress === address || hostAddress === `0000:${address}`);
}

/** As `isOnHostAt`, in the guest. */
export function isInGuestAt(device: Device, address: string): boolean {
  const guest = guestAddress(device);
  return guest === address || `0000:${guest}` === address;
}

export function isPassedThrough(device: Device): boolean {
  return device.type.startsWith('vfio-') || device.hostAddress !== '';
}
