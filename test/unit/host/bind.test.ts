/** Giving a device to vfio-pci and back, also when it was cut off anywhere in between. */
import { describe, expect, it } from 'vitest';
import {
  objectionsToBind,
  requireBindable,
  requireDevices,
  requireLetGo,
} from '../../../src/host/bind-check.ts';
import { readBindRecord } from '../../../src/host/bind-record.ts';
import { bindDevice, bindSteps, unbindDevice, unbindSteps } from '../../../src/host/bind.ts';
import { readPciDevice, type HostPciDevice } from '../../../src/host/pci.ts';
import { FakeKernel, Killed, type FakeKernelRules } from '../../support/fake-kernel.ts';
import { SysfsTree, type TreeDevice } from '../../support/sysfs-tree.ts';

const NIC = '0000:01:00.0';
const SOUND = '0000:01:00.1';
const RECORD = `run/mmiobridge/drivers/${NIC}`;
const OVERRIDE = `sys/bus/pci/devices/${NIC}/driver_override`;
const UNBIND = `sys/bus/pci/devices/${NIC}/driver/unbind`;
const PROBE = 'sys/bus/pci/drivers_probe';

function host(device: Partial<TreeDevice> = {}): SysfsTree {
  const tree = new SysfsTree();
  tree.driver('vfio-pci');
  tree.driver('e1000e');
  tree.device({ address: NIC, group: 9, ...device });
  return tree;
}

function at(tree: SysfsTree, address = NIC): HostPciDevice {
  const device = readPciDevice(tree.root, address);
  if (device === undefined) throw new Error(`no ${address}`);
  return device;
}

async function bind(tree: SysfsTree, rules: FakeKernelRules = {}): Promise<readonly string[]> {
  const kernel = new FakeKernel(tree, rules);
  await bindDevice(tree.root, at(tree), kernel);
  return kernel.asked;
}

async function unbind(tree: SysfsTree, rules: FakeKernelRules = {}): Promise<readonly string[]> {
  const kernel = new FakeKernel(tree, rules);
  await unbindDevice(tree.root, at(tree), kernel);
  return kernel.asked;
}

/** What a device is to the host. */
const stateOf = (tree: SysfsTree) => {
  const { driver, driverOverride } = at(tree);
  return { driver, driverOverride, record: readBindRecord(tree.root, NIC) };
};

describe('bind', () => {
  it('remembers the driver, and has vfio-pci take its place', async () => {
    using tree = host({ driver: 'e1000e' });
    expect(await bind(tree)).toEqual([
      `vfio-pci > ${OVERRIDE}`,
      `${NIC} > ${UNBIND}`,
      `${NIC} > ${PROBE}`,
    ]);
    expect(stateOf(tree)).toEqual({
      driver: 'vfio-pci',
      driverOverride: 'vfio-pci',
      record: { driver: 'e1000e', driverOverride: undefined },
    });
  });

  it('takes a device without a driver', async () => {
    using tree = host();
    expect(await bind(tree)).toEqual([`vfio-pci > ${OVERRIDE}`, `${NIC} > ${PROBE}`]);
    expect(stateOf(tree)).toMatchObject({ driver: 'vfio-pci', record: { driver: undefined } });
  });

  it('loads vfio-pci before it touches the device', async () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, group: 9, driver: 'e1000e' });
    const asked = await bind(tree, { modules: { 'vfio-pci': 'vfio-pci' } });
    expect(asked[0]).toBe('modprobe vfio-pci');
    expect(at(tree).driver).toBe('vfio-pci');
  });

  it('leaves the device alone if there is no module vfio-pci', async () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, group: 9, driver: 'e1000e' });
    await expect(bind(tree)).rejects.toMatchObject({
      message: 'cannot load the module vfio-pci',
      evidence: 'it was undone: its driver is e1000e',
    });
    const untouched = { driver: 'e1000e', driverOverride: undefined, record: undefined };
    expect(stateOf(tree)).toEqual(untouched);
  });

  it('gives the device back if vfio-pci does not take it', async () => {
    using tree = host({ driver: 'e1000e' });
    await expect(bind(tree, { broken: 'vfio-pci' })).rejects.toMatchObject({
      code: 'refused',
      message: `vfio-pci does not take ${NIC}`,
      evidence: 'it was undone: its driver is e1000e',
      hint: expect.stringContaining('dmesg'),
    });
    const before = { driver: 'e1000e', driverOverride: undefined, record: undefined };
    expect(stateOf(tree)).toEqual(before);
  });

  it.each(['vfio-pci', 'mlx5_vfio_pci'])(
    'has nothing to do for one bound to %s',
    async (driver) => {
      using tree = host({ driver });
      expect(await bind(tree)).toEqual([]);
      expect(readBindRecord(tree.root, NIC)).toBeUndefined();
    },
  );
});

describe('unbind', () => {
  it('gives the device back to the driver that it had', async () => {
    using tree = host({ driver: 'e1000e' });
    await bind(tree);
    expect(await unbind(tree, { native: 'other' })).toEqual([
      ` > ${OVERRIDE}`,
      `${NIC} > ${UNBIND}`,
      `${NIC} > sys/bus/pci/drivers/e1000e/bind`,
    ]);
    expect(stateOf(tree)).toEqual({
      driver: 'e1000e',
      driverOverride: undefined,
      record: undefined,
    });
  });

  it('gives back an override, too', async () => {
    using tree = host({ driver: 'pci-stub', driverOverride: 'pci-stub' });
    await bind(tree);
    await unbind(tree);
    expect(stateOf(tree)).toMatchObject({ driver: 'pci-stub', driverOverride: 'pci-stub' });
  });

  it('lets the kernel choose where the device had no driver', async () => {
    using tree = host();
    await bind(tree);
    await unbind(tree, { native: 'e1000e' });
    expect(stateOf(tree)).toMatchObject({ driver: 'e1000e', record: undefined });
  });

  it('lets the kernel choose where somebody else bound it', async () => {
    using tree = host({ driver: 'vfio-pci', driverOverride: 'vfio-pci' });
    await unbind(tree, { native: 'e1000e' });
    expect(stateOf(tree)).toMatchObject({ driver: 'e1000e', driverOverride: undefined });
  });

  it('is content with no driver where there was none', async () => {
    using tree = host();
    await bind(tree);
    await unbind(tree);
    expect(stateOf(tree)).toMatchObject({ driver: undefined, record: undefined });
  });

  it('loads the module of a driver that was unloaded meanwhile', async () => {
    using tree = host({ driver: 'igb' });
    await bind(tree);
    tree.removeDriver('igb');
    const asked = await unbind(tree, { native: 'igb', modules: { 'pci:v00008086': 'igb' } });
    expect(asked.slice(-2)).toEqual(['modprobe pci:v00008086', `${NIC} > ${PROBE}`]);
    expect(at(tree).driver).toBe('igb');
  });

  it('keeps the record if the driver does not take it back', async () => {
    using tree = host({ driver: 'e1000e' });
    await bind(tree);
    await expect(unbind(tree, { broken: 'e1000e' })).rejects.toMatchObject({ code: 'refused' });
    expect(readBindRecord(tree.root, NIC)?.driver).toBe('e1000e');
    await unbind(tree);
    expect(stateOf(tree)).toMatchObject({ driver: 'e1000e', record: undefined });
  });

  it('says which driver a probe did not bring back', async () => {
    using tree = host({ driver: 'igb' });
    await bind(tree);
    tree.removeDriver('igb');
    const modules = { 'pci:v00008086': 'something-else' };
    await expect(unbind(tree, { modules })).rejects.toMatchObject({
      message: `igb does not take ${NIC} back`,
      evidence: expect.stringContaining(tree.path(RECORD)),
    });
  });

  it('has nothing to do for one that is not bound', async () => {
    using tree = host({ driver: 'e1000e' });
    expect(await unbind(tree)).toEqual([]);
    expect(at(tree).driver).toBe('e1000e');
  });
});

/** Each place where bind (three requests) and unbind (three) can be cut off. */
const KILLS = [0, 1, 2, 3];

describe.each([
  ['with a driver', { driver: 'e1000e' }],
  ['with a driver and an override', { driver: 'e1000e', driverOverride: 'e1000e' }],
])('a device %s', (_, device) => {
  const before = { driverOverride: undefined, ...device, record: undefined };

  async function killedBind(tree: SysfsTree, killedAfter: number): Promise<void> {
    const all = await bind(tree, { killedAfter }).then(
      () => true,
      (error: unknown) => {
        if (!(error instanceof Killed)) throw error;
        return false;
      },
    );
    expect(all).toBe(killedAfter === 3);
  }

  it.each(KILLS)('whose bind was killed after %i requests is given back', async (killedAfter) => {
    using tree = host(device);
    await killedBind(tree, killedAfter);
    expect(readBindRecord(tree.root, NIC)?.driver).toBe('e1000e');
    await unbind(tree);
    expect(stateOf(tree)).toEqual(before);
  });

  it.each(KILLS)(
    'whose bind was killed after %i can be bound, and given back',
    async (killedAfter) => {
      using tree = host(device);
      await killedBind(tree, killedAfter);
      await bind(tree);
      expect(at(tree).driver).toBe('vfio-pci');
      await unbind(tree);
      expect(stateOf(tree)).toEqual(before);
    },
  );

  it.each([0, 1, 2])('whose unbind was killed after %i is given back', async (killedAfter) => {
    using tree = host(device);
    await bind(tree);
    await expect(unbind(tree, { killedAfter })).rejects.toThrow(Killed);
    await unbind(tree);
    expect(stateOf(tree)).toEqual(before);
  });

  it.each([0, 1, 2])('whose unbind was killed after %i can be bound again', async (killedAfter) => {
    using tree = host(device);
    await bind(tree);
    await expect(unbind(tree, { killedAfter })).rejects.toThrow(Killed);
    await bind(tree);
    expect(at(tree).driver).toBe('vfio-pci');
    await unbind(tree);
    expect(stateOf(tree)).toMatchObject(device);
  });
});

describe('the record', () => {
  it('is written before the first request', async () => {
    using tree = host({ driver: 'e1000e' });
    await expect(bind(tree, { killedAfter: 0 })).rejects.toThrow(Killed);
    expect(tree.text(RECORD)).toBe('driver=e1000e\ndriver_override=\n');
  });

  it('that is damaged is as one of a device that had no driver', async () => {
    using tree = host({ driver: 'vfio-pci', driverOverride: 'vfio-pci' });
    tree.file(RECORD, 'driver=../../../etc\n\0');
    await unbind(tree, { native: 'e1000e' });
    expect(stateOf(tree)).toMatchObject({ driver: 'e1000e', record: undefined });
  });

  it('of an earlier time does not count for a device that has a driver', async () => {
    using tree = host({ driver: 'e1000e' });
    tree.file(RECORD, 'driver=igb\ndriver_override=igb\n');
    await bind(tree);
    expect(readBindRecord(tree.root, NIC)).toEqual({
      driver: 'e1000e',
      driverOverride: undefined,
    });
  });
});

describe('the steps that --dry-run prints', () => {
  it('are those that are taken', async () => {
    using tree = host({ driver: 'e1000e' });
    const written = (steps: ReturnType<typeof bindSteps>) =>
      steps.flatMap((step) =>
        step.do === 'write' ? [`${step.text} > ${step.path.slice(tree.root.length + 1)}`] : [],
      );
    expect(written(bindSteps(tree.root, at(tree)))).toEqual(await bind(tree));
    expect(written(unbindSteps(tree.root, at(tree)))).toEqual(await unbind(tree));
  });
});

describe('refused is', () => {
  const objections = async (tree: SysfsTree, ...addresses: string[]) =>
    (await objectionsToBind(tree.root, requireDevices(tree.root, addresses))).map(
      ({ address, text, wayOut }) => `${address}: ${text} → ${wayOut}`,
    );

  it('a device that is not there, with those that are', () => {
    using tree = host();
    tree.device({ address: '0000:00:01.0', classCode: '0x060400' });
    expect(() => requireDevices(tree.root, ['0000:05:00.0'])).toThrow(
      expect.objectContaining({ code: 'not-found', evidence: `there is: ${NIC} 8086:10d3` }),
    );
  });

  it('a bridge', () => {
    using tree = host({ classCode: '0x060400', driver: 'pcieport' });
    expect(() => requireBindable(tree.root, at(tree))).toThrow(
      expect.objectContaining({ code: 'refused', evidence: 'its class is 0x060400' }),
    );
  });

  it('a device of a host whose IOMMU is off, unless VFIO may do without', () => {
    using tree = new SysfsTree();
    tree.device({ address: NIC, driver: 'e1000e' });
    expect(() => requireBindable(tree.root, at(tree))).toThrow(
      expect.objectContaining({
        message: `${NIC} is in no IOMMU group, and vfio-pci needs one`,
        evidence: expect.stringContaining('no IOMMU is on'),
        hint: expect.stringContaining('intel_iommu=on'),
      }),
    );
    tree.file('sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y\n');
    expect(() => requireBindable(tree.root, at(tree))).not.toThrow();
  });

  it('a device whose group has others in use; not if they are given with it', async () => {
    using tree = host({ driver: 'e1000e' });
    tree.device({ address: SOUND, driver: 'snd_hda_intel', group: 9 });
    tree.device({ address: '0000:01:00.2', group: 9 });
    tree.device({ address: '0000:00:01.0', classCode: '0x060400', driver: 'pcieport', group: 9 });
    expect(await objections(tree, NIC)).toEqual([
      `${NIC}: ${SOUND}, which snd_hda_intel drives, is in its IOMMU group 9 → ` +
        `give the group as a whole (mmiobridge bind ${NIC} ${SOUND})`,
    ]);
    expect(await objections(tree, NIC, SOUND)).toEqual([]);
  });

  it('a device with a mounted disk', async () => {
    using tree = host({ driver: 'ahci' });
    tree.disk('sda', tree.sysPath(NIC), '8', ['sda1']);
    tree.file('proc/self/mountinfo', '36 35 8:1 / / rw - ext4 /dev/sda1 rw\n');
    expect(await objections(tree, NIC)).toEqual([
      expect.stringMatching(/: sda1 is mounted on \/ → unmount /),
    ]);
  });

  it('a device with the only default route', async () => {
    using tree = host({ driver: 'e1000e' });
    tree.networkInterface('eth0', tree.sysPath(NIC));
    tree.file('proc/net/route', `eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n`);
    expect(await objections(tree, NIC)).toEqual([
      expect.stringMatching(/: eth0 carries the only default route .* → reach the host /),
    ]);
  });

  it('the display that the host booted on', async () => {
    using tree = host({ driver: 'nouveau', bootVga: true });
    expect(await objections(tree, NIC)).toEqual([
      expect.stringMatching(/ booted on → make another /),
    ]);
  });

  it('nothing of a device that VFIO has already', async () => {
    using tree = host({ driver: 'vfio-pci', bootVga: true });
    expect(await objections(tree, NIC)).toEqual([]);
  });

  it('to unbind a device of a VM that runs', () => {
    using tree = host({ driver: 'vfio-pci' });
    expect(() => requireLetGo(tree.root, at(tree))).not.toThrow();
    tree.file('proc/4242/comm', 'qemu-system-x86\n');
    tree.absoluteLink('proc/4242/fd/23', '/dev/vfio/9');
    expect(() => requireLetGo(tree.root, at(tree))).toThrow(
      expect.objectContaining({
        code: 'refused',
        evidence: 'process 4242 (qemu-system-x86) has IOMMU group 9 open',
      }),
    );
  });
});
