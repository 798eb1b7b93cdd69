import { MmioError } from '../base/errors.ts';
import { BAR_SLOTS, NO_BAR, type Bar, type Device } from '../model/device.ts';
import { isObject } from '../qmp/protocol.ts';

/** A function as `query-pci` tells it (QEMU's `qapi/pci.json`, PciDeviceInfo). */
export interface PciInfo extends Pick<
  Device,
  'qemuId' | 'bus' | 'devfn' | 'vendorId' | 'deviceId' | 'classCode' | 'irq' | 'bars'
> {
  /** Of a bridge: what is behind it; nothing until firmware has given its bus a number. */
  readonly behind: readonly PciInfo[];
}

/**
 * Reads the reply of `query-pci`: the functions of each root bus. Throws MmioError `protocol` if it
 * is none; what a function lacks is 0.
 */
export function readQueryPci(reply: unknown): readonly (readonly PciInfo[])[] {
  if (!Array.isArray(reply)) {
    throw new MmioError('protocol', 'query-pci answered with no list of buses', {
      evidence: (JSON.stringify(reply) ?? 'nothing').slice(0, 200),
    });
  }
  return reply.map((bus: unknown) => functions(field(bus, 'devices')));
}

function functions(list: unknown): readonly PciInfo[] {
  if (!Array.isArray(list)) return [];
  return list.map((device: unknown) => {
    const id = field(device, 'id');
    const qemuId = field(device, 'qdev_id');
    return {
      qemuId: typeof qemuId === 'string' ? qemuId : '',
      bus: integer(field(device, 'bus')),
      devfn: (integer(field(device, 'slot')) << 3) | integer(field(device, 'function')),
      vendorId: integer(field(id, 'vendor')),
      deviceId: integer(field(id, 'device')),
      // QEMU tells class and subclass; the programming interface stays 0.
      classCode: integer(field(field(device, 'class_info'), 'class')) << 8,
      irq: integer(field(device, 'irq')),
      bars: bars(field(device, 'regions')),
      behind: functions(field(field(device, 'pci_bridge'), 'devices')),
    };
  });
}

function bars(regions: unknown): readonly Bar[] {
  const slots = emptyBars();
  if (!Array.isArray(regions)) return slots;
  for (const region of regions as readonly unknown[]) {
    const slot = field(region, 'bar');
    if (typeof slot !== 'number' || slot < 0 || slot >= BAR_SLOTS) continue;
    const flags =
      field(region, 'type') === 'io'
        ? 1
        : (field(region, 'mem_type_64') === true ? 4 : 0) +
          (field(region, 'prefetch') === true ? 8 : 0);
    slots[slot] = {
      // -1 while unassigned
      start: Math.max(0, integer(field(region, 'address'))),
      flags,
      sizeBytes: integer(field(region, 'size')),
    };
  }
  return slots;
}

export function emptyBars(): Bar[] {
  return Array.from({ length: BAR_SLOTS }, () => NO_BAR);
}

function field(value: unknown, name: string): unknown {
  return isObject(value) ? value[name] : undefined;
}

function integer(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}
