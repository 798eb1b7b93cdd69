/** What the host, or a VM, does with a device. */
import { describe, expect, it } from 'vitest';
import { readPciDevice } from '../../../src/host/pci.ts';
import { readDeviceUses } from '../../../src/host/uses.ts';
import { SysfsTree, type TreeDevice } from '../../support/sysfs-tree.ts';

const DEVICE = '0000:01:00.0';
const OTHER = '0000:02:00.0';
const VIRTUAL = 'sys/devices/virtual';

function host(device: Partial<TreeDevice> = {}): SysfsTree {
  const tree = new SysfsTree();
  tree.device({ address: DEVICE, group: 9, ...device });
  tree.device({ address: OTHER, group: 10 });
  return tree;
}

async function usesOf(tree: SysfsTree, address = DEVICE, together: string[] = []) {
  const device = readPciDevice(tree.root, address);
  if (device === undefined) throw new Error(`no ${address}`);
  const uses = await readDeviceUses(tree.root, device, together);
  return uses.map(({ kind, text }) => `${kind}: ${text}`);
}

function mountinfo(...mounts: readonly (readonly [string, string, string])[]): string {
  return mounts
    .map(([dev, point, source]) => `36 35 ${dev} / ${point} rw shared:1 - ext4 ${source} rw\n`)
    .join('');
}

describe('a device that nobody uses', () => {
  it('has no uses', async () => {
    using tree = host();
    expect(await usesOf(tree)).toEqual([]);
  });

  it('has none where procfs and sysfs are damaged', async () => {
    using tree = host();
    tree.disk('sda', tree.sysPath(DEVICE), '8', ['sda1']);
    tree.networkInterface('eth0', tree.sysPath(DEVICE));
    tree.file('proc/self/mountinfo', 'garbage\n36 35\n\0\0 - \n');
    tree.file('proc/swaps', '\n\n');
    tree.file('proc/net/route', 'Iface\neth0 00000000\n');
    tree.file('proc/net/ipv6_route', '0 0\n');
    tree.link('sys/block/gone', 'sys/devices/gone');
    tree.link('sys/class/net/gone', 'sys/devices/gone');
    tree.file('proc/4242/fd', 'not a folder');
    expect(await usesOf(tree)).toEqual([]);
  });
});

describe('a disk', () => {
  it('whose partition is mounted, swap, or both is in use', async () => {
    using tree = host();
    tree.disk('vda', `${tree.sysPath(DEVICE)}/virtio1`, '254', ['vda1', 'vda2', 'vda3']);
    const root = ['254:1', '/', '/dev/vda1'] as const;
    const bound = ['254:1', '/srv/a\\040b', '/dev/vda1'] as const;
    tree.file('proc/self/mountinfo', mountinfo(root, bound));
    tree.file(
      'proc/swaps',
      'Filename\tType\tSize\tUsed\tPriority\n/dev/vda2  partition\t1\t0\t-2\n',
    );
    expect(await usesOf(tree)).toEqual([
      'disk: vda1 is mounted on / and 1 more place',
      'disk: vda2 is swap space',
    ]);
    expect(await usesOf(tree, OTHER)).toEqual([]);
  });

  it('without partitions that is mounted is in use', async () => {
    using tree = host();
    tree.disk('sdb', `${tree.sysPath(DEVICE)}/ata1/host0/target0:0:0/0:0:0:0`, '8');
    tree.file('proc/self/mountinfo', mountinfo(['8:0', '/a\\040b', '/dev/sdb']));
    expect(await usesOf(tree)).toEqual(['disk: sdb is mounted on /a b']);
  });

  it('is in use by what is made of it, and what that is used for', async () => {
    using tree = host();
    tree.disk('sda', tree.sysPath(DEVICE), '8', ['sda1', 'sda2']);
    tree.disk('dm-0', VIRTUAL, '253');
    tree.disk('dm-1', VIRTUAL, '252');
    tree.disk('md0', VIRTUAL, '9');
    tree.file(`${VIRTUAL}/block/dm-0/dm/name`, 'crypt\n');
    tree.file(`${VIRTUAL}/block/dm-1/dm/name`, 'vg-root\n');
    tree.link(`${VIRTUAL}/block/dm-0/holders/dm-1`, `${VIRTUAL}/block/dm-1`);
    tree.link(`${tree.sysPath(DEVICE)}/block/sda/sda1/holders/dm-0`, `${VIRTUAL}/block/dm-0`);
    tree.link(`${tree.sysPath(DEVICE)}/block/sda/sda2/holders/md0`, `${VIRTUAL}/block/md0`);
    tree.file('proc/self/mountinfo', mountinfo(['252:0', '/home', '/dev/mapper/vg-root']));
    expect(await usesOf(tree)).toEqual([
      'disk: sda1 is part of dm-0 crypt (part of dm-1 vg-root (mounted on /home))',
      'disk: sda2 is part of md0',
    ]);
  });

  it('of a btrfs is in use, whether or not it is the one that mount names', async () => {
    using tree = host();
    tree.disk('sda', tree.sysPath(DEVICE), '8', ['sda1', 'sda2']);
    for (const name of ['sda1', 'sda2']) {
      tree.link(`sys/fs/btrfs/some-uuid/devices/${name}`, `sys/devices/any`);
    }
    tree.file('proc/self/mountinfo', mountinfo(['0:31', '/data', '/dev/sda1']));
    expect(await usesOf(tree)).toEqual([
      'disk: sda1 is mounted on /data',
      'disk: sda2 is part of a mounted btrfs',
    ]);
  });

  it('of NVMe with several paths hangs below each of its controllers', async () => {
    using tree = host();
    const subsystem = `${VIRTUAL}/nvme-subsystem/nvme-subsys0`;
    tree.file(`${tree.sysPath(DEVICE)}/nvme/nvme0/state`, 'live\n');
    tree.link(`${subsystem}/nvme0`, `${tree.sysPath(DEVICE)}/nvme/nvme0`);
    tree.file(`${subsystem}/nvme0n1/dev`, '259:0\n');
    tree.link('sys/block/nvme0n1', `${subsystem}/nvme0n1`);
    tree.file('proc/self/mountinfo', mountinfo(['259:0', '/', '/dev/nvme0n1']));
    expect(await usesOf(tree)).toEqual(['disk: nvme0n1 is mounted on /']);
    expect(await usesOf(tree, OTHER)).toEqual([]);
  });
});

const HEAD = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n';
const route4 = (name: string, to = '00000000', flags = '0003') =>
  `${name}\t${to}\t010200C0\t${flags}\t0\t0\t0\t${to === '00000000' ? to : '00FFFFFF'}\t0\t0\t0  \n`;
const route6 = (name: string, length = '00', flags = '00000003') =>
  `${'0'.repeat(32)} ${length} ${'0'.repeat(32)} 00 ${'f'.repeat(32)} 00000400 00000001 00000000 ${flags} ${name.padStart(8)}\n`;

describe('a network card', () => {
  const cards = (): SysfsTree => {
    const tree = host();
    tree.networkInterface('eth0', `${tree.sysPath(DEVICE)}/virtio2`);
    tree.networkInterface('eth1', tree.sysPath(OTHER));
    tree.networkInterface('tun0', VIRTUAL);
    return tree;
  };
  const ONLY4 = (name: string) => `network: ${name} carries the only default route (IPv4)`;

  it('with the only default route is in use, the other is not', async () => {
    using tree = cards();
    tree.file('proc/net/route', HEAD + route4('eth0') + route4('eth1', '000200C0'));
    expect(await usesOf(tree)).toEqual([ONLY4('eth0')]);
    expect(await usesOf(tree, OTHER)).toEqual([]);
  });

  it('with one of two default routes can be spared, both together cannot', async () => {
    using tree = cards();
    tree.file('proc/net/route', HEAD + route4('eth0') + route4('eth1'));
    expect(await usesOf(tree)).toEqual([]);
    expect(await usesOf(tree, DEVICE, [DEVICE, OTHER])).toEqual([ONLY4('eth0')]);
  });

  it('is in use below a bridge or VLAN, and below a bond of no other card', async () => {
    using tree = cards();
    tree.networkInterface('bond0', VIRTUAL, ['eth0']);
    tree.networkInterface('br0', VIRTUAL, ['bond0', 'tun0']);
    tree.networkInterface('br0.5', VIRTUAL, ['br0']);
    tree.file('proc/net/route', HEAD + route4('br0.5'));
    expect(await usesOf(tree)).toEqual([ONLY4('br0.5')]);
  });

  it('can be spared by a bond with another card', async () => {
    using tree = cards();
    tree.networkInterface('bond0', VIRTUAL, ['eth0', 'eth1']);
    tree.file('proc/net/route', HEAD + route4('bond0'));
    expect(await usesOf(tree)).toEqual([]);
  });

  it('cannot be spared for a tunnel, which needs it', async () => {
    using tree = cards();
    tree.file('proc/net/route', HEAD + route4('eth0') + route4('tun0'));
    expect(await usesOf(tree)).toEqual([ONLY4('eth0')]);
  });

  it('with the only default route of IPv6 is in use', async () => {
    using tree = cards();
    tree.file('proc/net/route', HEAD + route4('eth0') + route4('eth1'));
    tree.file(
      'proc/net/ipv6_route',
      route6('eth0', '40') + route6('eth0') + route6('lo', '00', '00200200'),
    );
    expect(await usesOf(tree)).toEqual(['network: eth0 carries the only default route (IPv6)']);
  });

  it('whose default route rejects has none', async () => {
    using tree = cards();
    tree.file('proc/net/route', HEAD + route4('eth0', '00000000', '0201'));
    expect(await usesOf(tree)).toEqual([]);
  });
});

describe('a display', () => {
  it('that the host booted on is in use', async () => {
    using tree = host({ classCode: '0x030000', bootVga: true });
    expect(await usesOf(tree)).toEqual(['display: it is the display that the host booted on']);
  });
});

describe('a device of a VM', () => {
  it.each([
    ['/dev/vfio/9', true],
    ['/dev/vfio/noiommu-9', true],
    ['/dev/vfio/devices/vfio3', true],
    ['/dev/vfio/90', false],
    ['/dev/vfio/vfio', false],
  ])('whose process has %s open: %s', async (path, inUse) => {
    using tree = host({ driver: 'vfio-pci' });
    tree.file(`${tree.sysPath(DEVICE)}/vfio-dev/vfio3/dev`, '511:3\n');
    tree.file('proc/4242/comm', 'qemu-system-x86\n');
    tree.absoluteLink('proc/4242/fd/0', '/dev/null');
    tree.absoluteLink('proc/4242/fd/23', path);
    expect(await usesOf(tree)).toEqual(
      inUse ? ['vm: process 4242 (qemu-system-x86) has group 9 open'] : [],
    );
    expect(await usesOf(tree, OTHER)).toEqual([]);
  });
});
