import { AccessBatch } from '../../src/model/access-batch.ts';
import { NO_BAR, type Device, type Region } from '../../src/model/device.ts';
import { Tables } from '../../src/model/tables.ts';
import { batchOf, PLAIN_READ, type Access } from './captures.ts';

export const NIC: Device = {
  id: 0,
  name: 'nic0',
  type: 'e1000e',
  qemuId: 'nic0',
  hostAddress: '',
  bus: 0,
  devfn: 0x10,
  vendorId: 0x8086,
  deviceId: 0x10d3,
  classCode: 0x020000,
  irq: 11,
  bars: Array.from({ length: 7 }, () => NO_BAR),
  driver: '',
};
/** A card beside it, with nothing but its address. */
export const GPU: Device = {
  ...NIC,
  id: 1,
  name: 'gpu',
  type: 'vfio-pci',
  qemuId: '',
  hostAddress: '0000:01:00.0',
  bus: 1,
  devfn: 0,
};

export const bar = (id: number, device: number, slot: number): Region => ({
  id,
  device,
  kind: 'bar',
  bar: slot,
  name: `BAR${slot}`,
  sizeBytes: 0x1000,
});

/** Region 0 is BAR0 of nic0, 1 its BAR1, 2 the card's BAR0, 3 nic0's configuration space. */
export function twoDevices(): Tables {
  const config: Region = { ...bar(3, 0, -1), kind: 'config', name: 'config' };
  return new Tables({
    devices: [NIC, GPU],
    regions: [bar(0, 0, 0), bar(1, 0, 1), bar(2, 1, 0), config],
    mappings: [],
  });
}

export const read = (timeNs: number, offset: number, valueLo = 0, more: Partial<Access> = {}) => ({
  ...PLAIN_READ,
  timeNs,
  offset,
  valueLo,
  cpu: 0,
  ...more,
});
export const write = (timeNs: number, offset: number, valueLo = 0, more: Partial<Access> = {}) =>
  read(timeNs, offset, valueLo, { op: 1, ...more });

export const batch = (...rows: readonly Access[]): AccessBatch => batchOf(rows);

/** `W 10@1000=2a`, a row each. */
export function textOf({ length, op, offset, timeNs, valueLo }: AccessBatch): string[] {
  return Array.from({ length }, (_, row) => {
    const letter = op[row] === 1 ? 'W' : 'R';
    return `${letter} ${offset[row]?.toString(16)}@${timeNs[row]}=${valueLo[row]?.toString(16)}`;
  });
}
