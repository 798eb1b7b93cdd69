/** What is read of the host's PCI devices and IOMMU groups. */
import { rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { blockersOf, isVfioDriver, readIommuGroups } from '../../../src/host/iommu-groups.ts';
import {
  fullPciAddress,
  idsOf,
  readPciDevice,
  readPciDevices,
  readSubsystem,
  type HostPciDevice,
} from '../../../src/host/pci.ts';
import { SysfsTree } from '../../support/sysfs-tree.ts';

const NIC = '0000:01:00.0';

const IDS = `# A list
1af4  Red Hat, Inc.
\t1000  Virtio network device

8086  Intel Corporation
\t10d3  82574L Gigabit Network Connection
\t\t8086 0001  A subsystem
# a comment in between
\t1533  I210 Gigabit Network Connection
8087  Another
\t0a2a  Of another vendor
`;

function only(tree: SysfsTree, address = NIC): HostPciDevice {
  const device = readPciDevice(tree.root, address);
  if (device === undefined) throw new Error(`no ${address}`);
  return device;
}

describe('a PCI device', () => {
  it('is what sysfs says', () => {
    using tree = new SysfsTree();
    tree.device({
      address: NIC,
      driver: 'e1000e',
      group: 9,
      resetMethod: 'flr bus',
      resources: [
        '0x00000000feb80000 0x00000000feb9ffff 0x0000000000040200',
        '0x0000000000000000 0x0000000000000000 0x0000000000000000',
        '0x000000000000c040 0x000000000000c05f 0x0000000000040101',
        '0x0000004000000000 0x0000004fffffffff 0x000000000014220c',
      ],
    });
    expect(readPciDevices(tree.root)).toEqual([
      {
        address: NIC,
        vendorId: 0x8086,
        deviceId: 0x10d3,
        subsystemVendorId: 0x1af4,
        subsystemId: 0x1100,
        classCode: 0x020000,
        revision: 3,
        vendorName: undefined,
        deviceName: undefined,
        driver: 'e1000e',
        driverOverride: undefined,
        iommuGroup: 9,
        resetMethods: ['flr', 'bus'],
        bootVga: false,
        bridge: false,
        resources: [
          { index: 0, start: 0xfeb80000, sizeBytes: 0x20000, flags: 0x40200 },
          { index: 2, start: 0xc040, sizeBytes: 0x20, flags: 0x40101 },
          { index: 3, start: 0x4000000000, sizeBytes: 0x1000000000, flags: 0x14220c },
        ],
      },
    ]);
    expect(idsOf(only(tree))).toBe('8086:10d3');
    expect(readSubsystem(tree.root, NIC)).toBe('1af4:1100');
    expect(readSubsystem(tree.root, '0000:0f:00.0')).toBeUndefined();
  });

  it('may have no driver, no group and no reset', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC });
    const found = { driver: undefined, iommuGroup: undefined, resetMethods: [], resources: [] };
    expect(only(tree)).toMatchObject(found);
  });

  it('is of an older kernel, which does not tell how it resets', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC });
    tree.file(`${tree.sysPath(NIC)}/reset`, '');
    expect(only(tree).resetMethods).toBeUndefined();
  });

  it.each([
    ['(null)', undefined],
    ['', undefined],
    ['vfio-pci', 'vfio-pci'],
  ])('with driver_override "%s" has the override %s', (driverOverride, expected) => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, driverOverride });
    expect(only(tree).driverOverride).toBe(expected);
  });

  it('shows whether firmware drew on it', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, classCode: '0x030000', bootVga: true });
    tree.device({ address: '0000:02:00.0', classCode: '0x030000', bootVga: false });
    expect(readPciDevices(tree.root).map(({ bootVga }) => bootVga)).toEqual([true, false]);
  });

  it.each([
    ['0x060400', true],
    ['0x060401', true],
    ['0x060700', true],
    ['0x060000', false],
    ['0x060100', false],
    ['0x020000', false],
  ])('of class %s: a bridge to a bus? %s', (classCode, bridge) => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, classCode });
    expect(only(tree).bridge).toBe(bridge);
  });

  it('that is not there is none', () => {
    using tree = new SysfsTree();
    expect(readPciDevice(tree.root, NIC)).toBeUndefined();
    expect(readPciDevices(tree.path('nowhere'))).toEqual([]);
  });

  it('that is unplugged while we look is left out', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC });
    tree.device({ address: '0000:02:00.0' });
    rmSync(tree.path(tree.sysPath(NIC)), { recursive: true });
    expect(readPciDevices(tree.root).map(({ address }) => address)).toEqual(['0000:02:00.0']);
  });

  it.each([
    ['vendor', 'garbage\n'],
    ['class', '\0\x01'],
    ['resource', '0x1 0x2\n'],
  ])('whose file %s is damaged is an error that shows the file', (name, text) => {
    using tree = new SysfsTree();
    tree.device({ address: NIC });
    tree.file(`${tree.sysPath(NIC)}/${name}`, text);
    expect(() => readPciDevices(tree.root)).toThrow(
      expect.objectContaining({
        code: 'damaged',
        message: expect.stringContaining(`${NIC}/${name}`),
        evidence: expect.stringMatching(/^it says: /),
      }),
    );
  });
});

describe('names', () => {
  it.each([
    ['usr/share/hwdata/pci.ids', '0x10d3', '82574L Gigabit Network Connection'],
    ['usr/share/misc/pci.ids', '0x1533', 'I210 Gigabit Network Connection'],
    ['usr/share/misc/pci.ids', '0x0a2a', undefined],
    ['usr/share/misc/pci.ids', '0xffff', undefined],
  ])('are those of %s: %s is %s', (place, deviceId, name) => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, ids: ['0x8086', deviceId] });
    tree.file(place, IDS);
    expect(only(tree)).toMatchObject({ vendorName: 'Intel Corporation', deviceName: name });
  });

  it('of a vendor that the list does not know are none', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, ids: ['0x1234', '0x10d3'] });
    tree.file('usr/share/misc/pci.ids', IDS);
    expect(only(tree)).toMatchObject({ vendorName: undefined, deviceName: undefined });
  });

  it('of the last vendor end with a list that was cut', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, ids: ['0x8087', '0x0a2a'] });
    tree.file('usr/share/misc/pci.ids', IDS.trimEnd());
    expect(only(tree)).toMatchObject({ vendorName: 'Another', deviceName: 'Of another vendor' });
  });
});

describe('an address', () => {
  it.each([
    ['0000:01:00.0', '0000:01:00.0'],
    ['01:00.0', '0000:01:00.0'],
    ['0A:1F.7', '0000:0a:1f.7'],
    ['10000:e1:00.0', '10000:e1:00.0'],
    ['1:0.0', undefined],
    ['0000:01:20.0', undefined],
    ['0000:01:00.8', undefined],
    ['../../etc', undefined],
    ['', undefined],
  ])('"%s" is %s', (text, address) => {
    expect(fullPciAddress(text)).toBe(address);
  });
});

describe('IOMMU groups', () => {
  it('have members, by number', () => {
    using tree = new SysfsTree();
    tree.device({ address: '0000:00:01.0', classCode: '0x060400', driver: 'pcieport', group: 10 });
    tree.device({ address: NIC, group: 10, behind: '0000:00:01.0' });
    tree.device({ address: '0000:02:00.0', group: 2 });
    tree.device({ address: '0000:03:00.0' });
    tree.link('sys/kernel/iommu_groups/2/devices/platform-thing', 'sys/devices/platform-thing');
    const groups = readIommuGroups(tree.root);
    expect(groups.map(({ id, members }) => [id, members.map(({ address }) => address)])).toEqual([
      [2, ['0000:02:00.0']],
      [10, ['0000:00:01.0', NIC]],
    ]);
    expect(groups.map(({ otherMembers }) => otherMembers)).toEqual([['platform-thing'], []]);
  });

  it('are none without an IOMMU', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC });
    expect(readIommuGroups(tree.root)).toEqual([]);
    expect(readIommuGroups(tree.path('nowhere'))).toEqual([]);
  });

  it('are viable where all but bridges have no driver, or one of VFIO', () => {
    using tree = new SysfsTree();
    tree.device({ address: '0000:00:01.0', classCode: '0x060400', driver: 'pcieport', group: 1 });
    tree.device({ address: NIC, group: 1 });
    tree.device({ address: '0000:01:00.1', driver: 'vfio-pci', group: 1 });
    tree.device({ address: '0000:01:00.2', driver: 'pci-stub', group: 1 });
    const [group] = readIommuGroups(tree.root);
    expect(group && blockersOf(group)).toEqual([]);
  });

  it('are not viable because of each member that has another driver', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, driver: 'e1000e', group: 1 });
    tree.device({ address: '0000:01:00.1', driver: 'vfio-pci', group: 1 });
    tree.device({ address: '0000:01:00.2', classCode: '0x060100', driver: 'lpc_ich', group: 1 });
    const [group] = readIommuGroups(tree.root);
    const blockers = group === undefined ? [] : blockersOf(group);
    expect(blockers.map(({ address }) => address)).toEqual([NIC, '0000:01:00.2']);
  });

  it.each([
    ['vfio-pci', true],
    ['mlx5_vfio_pci', true],
    ['nvgrace-gpu-vfio-pci', true],
    ['e1000e', false],
    ['vfio-pci-not', false],
    [undefined, false],
  ])('%s is a driver of VFIO: %s', (driver, expected) => {
    expect(isVfioDriver(driver)).toBe(expected);
  });
});
