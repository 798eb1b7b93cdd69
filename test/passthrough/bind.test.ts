/**
 * bind, unbind and vfio-bind.sh, with a real kernel, IOMMU and vfio-pci: in L1 of the nested lab,
 * whose devices qemu-scripts/lab/l1.sh lists.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { MAIN, type CliResult } from '../support/cli.ts';
import { Lab } from '../support/lab.ts';
import { scriptPath } from '../support/scripts.ts';

const NIC = '0000:00:10.0';
const E1000 = '0000:01:01.0';
const EDU = '0000:01:02.0';
const SCRIPT = scriptPath('vfio-bind.sh');

let lab: Lab;
beforeAll(async () => {
  lab = await Lab.start();
  // As L1 has booted: other tests of this lab may have taken it.
  await mmiobridge('unbind', NIC);
});

/** Runs a program as root in L1. */
function l1(...command: readonly string[]): Promise<CliResult> {
  return lab.run(command, { timeoutMs: 60_000 });
}

const mmiobridge = (...args: readonly string[]) => l1(process.execPath, MAIN, ...args);

/** Runs a script that must not fail; what it prints. */
async function sh(script: string): Promise<string> {
  const { status, stdout, stderr } = await l1('sh', '-euc', script);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return stdout.trimEnd();
}

/** Driver, override, and what is remembered of a device. */
async function stateOf(address: string): Promise<string> {
  return sh(`
    cd /sys/bus/pci/devices/${address}
    driver=$(readlink driver) || driver=none
    echo "\${driver##*/} $(cat driver_override)"
    cat /run/mmiobridge/drivers/${address} 2>&1 || :`);
}

const untouched = (driver: string) => new RegExp(`^${driver} \\(null\\)\n.*No such file`);

async function succeeds(result: Promise<CliResult>): Promise<string> {
  const { status, stderr } = await result;
  expect([status, stderr]).toEqual([0, stderr]);
  return stderr;
}

describe('bind refuses, and leaves alone,', () => {
  it.each([
    ['the boot display', '0000:00:0f.0', 'none', /the host booted on/],
    ['the network card of the only route', '0000:00:11.0', 'virtio-pci', /only default route/],
    ['a mounted disk', '0000:00:12.0', 'nvme', /nvme0n1 is mounted on \/mnt\/disk/],
    ['a bridge', '0000:00:13.0', 'none', /PCI bridge, and vfio-pci takes none/],
    [
      'a device in one group with another in use',
      EDU,
      'none',
      /0000:01:01\.0, which e1000 drives, is in its IOMMU group \d+\n.*bind 0000:01:02\.0 0000:01:01\.0/,
    ],
  ])('%s', async (_, address, driver, words) => {
    const { status, stderr } = await mmiobridge('bind', address);
    expect(stderr).toMatch(words);
    expect(stderr).toMatch(/^ {2}hint: /m);
    expect(status).toBe(1);
    expect(await stateOf(address)).toMatch(untouched(driver));
  });

  it('all, for another user than root', async () => {
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const { status, stderr } = await l1(...user, process.execPath, MAIN, 'bind', NIC);
    expect(stderr).toBe(
      'mmiobridge: only root may give devices to other drivers\n' +
        '  the effective user id is 65534\n' +
        `  hint: sudo mmiobridge bind ${NIC}\n`,
    );
    expect(status).toBe(1);
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
  });
});

describe('bind and unbind', () => {
  it('give a device to vfio-pci and back to its driver, once and again', async () => {
    expect(await succeeds(mmiobridge('bind', '00:10.0'))).toMatch(/given to vfio-pci.*e1000e/);
    expect(await stateOf(NIC)).toBe('vfio-pci vfio-pci\ndriver=e1000e\ndriver_override=');
    const again = await succeeds(mmiobridge('bind', NIC));
    expect(again).toContain('is bound to vfio-pci already');
    const group = /IOMMU group (\d+): QEMU opens \/dev\/vfio\/\1\n/.exec(again)?.[1] ?? '';
    await sh(`test -c /dev/vfio/${group}`);

    // Whoever has the group open has the device; the kernel would wait for it.
    await sh(`exec 3<>/dev/vfio/${group}; sleep 1000 & echo $! >/tmp/vm`);
    const { status, stderr } = await mmiobridge('unbind', NIC);
    expect(stderr).toMatch(/in use by a VM\n {2}process \d+ \(sleep\) has IOMMU group/);
    expect(status).toBe(1);
    await sh('kill $(cat /tmp/vm); while [ -e /proc/$(cat /tmp/vm)/exe ]; do sleep 0.1; done');

    expect(await succeeds(mmiobridge('unbind', '00:10.0'))).toContain('its driver: e1000e');
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
    expect(await sh(`ls /sys/bus/pci/devices/${NIC}/net`)).not.toBe('');
    const nothing = await succeeds(mmiobridge('unbind', NIC));
    expect(nothing).toContain('is not bound to vfio-pci; its driver: e1000e');
  });

  it('take the devices of a group together', async () => {
    await succeeds(mmiobridge('bind', E1000, EDU));
    expect(await stateOf(E1000)).toMatch(/^vfio-pci .*\ndriver=e1000\n/);
    expect(await stateOf(EDU)).toMatch(/^vfio-pci .*\ndriver=\n/);
    await succeeds(mmiobridge('unbind', E1000, EDU));
    expect(await stateOf(E1000)).toMatch(untouched('e1000'));
    expect(await stateOf(EDU)).toMatch(untouched('none'));
  });

  it('take with --force what the host uses', async () => {
    const stderr = await succeeds(mmiobridge('bind', '--force', EDU));
    expect(stderr).toContain('taken by force: 0000:01:01.0, which e1000 drives');
    expect(await stateOf(EDU)).toMatch(/^vfio-pci /);
    await succeeds(mmiobridge('unbind', EDU));
  });

  it('load the module of a driver that was unloaded meanwhile', async () => {
    await succeeds(mmiobridge('bind', NIC));
    await sh('rmmod e1000e');
    await succeeds(mmiobridge('unbind', NIC));
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
  });

  it('take a disk that is unmounted, once nobody else holds it', async () => {
    // As a file system does that shows in no list of mounts.
    const hold = `
      fs.openSync('/dev/nvme0n1', fs.constants.O_RDONLY | fs.constants.O_EXCL);
      fs.writeFileSync('/tmp/held', '');
      setInterval(() => {}, 1000);`;
    await sh(`umount /mnt/disk
      '${process.execPath}' -e "${hold}" & echo $! >/tmp/holder
      until [ -e /tmp/held ]; do sleep 0.1; done`);
    const { status, stderr } = await mmiobridge('bind', '00:12.0');
    expect(stderr).toContain('0000:00:12.0: nvme0n1 is held by someone alone (a ZFS pool, say)\n');
    expect(status).toBe(1);
    await sh(
      'kill $(cat /tmp/holder); while [ -e /proc/$(cat /tmp/holder)/exe ]; do sleep 0.1; done',
    );
    await succeeds(mmiobridge('bind', '00:12.0'));
    await succeeds(mmiobridge('unbind', '00:12.0'));
    expect(await stateOf('0000:00:12.0')).toMatch(untouched('nvme'));
  });

  it('only print with --dry-run', async () => {
    const { stdout, status } = await mmiobridge('bind', '--dry-run', NIC);
    expect(stdout.split('\n')[0]).toBe(`# ${NIC} 8086:10d3`);
    expect(status).toBe(0);
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
  });
});

describe.each([
  ['mmiobridge unbind', [process.execPath, MAIN, 'unbind'], [process.execPath, MAIN, 'bind']],
  ['vfio-bind.sh -u', [SCRIPT, '-u'], [SCRIPT]],
] as const)('what was cut off is put right by %s', (_, unbind, bind) => {
  const steps = { bind: [''], unbind: [''] };

  async function dryRun(command: 'bind' | 'unbind'): Promise<string[]> {
    const { stdout } = await mmiobridge(command, '--dry-run', NIC);
    return stdout.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  }

  beforeAll(async () => {
    await sh('modprobe vfio-pci');
    steps.bind = await dryRun('bind');
    await sh(steps.bind.join('\n'));
    steps.unbind = await dryRun('unbind');
    await succeeds(l1(...unbind, NIC));
  });

  /** Does the first of the steps, as if it were killed before the next. */
  async function cutOff(command: 'bind' | 'unbind', after: number): Promise<void> {
    expect(steps[command].length).toBeGreaterThan(after);
    await sh(steps[command].slice(0, after).join('\n'));
  }

  // What is remembered; the override; off the old driver; and before drivers_probe.
  it.each([1, 2, 3])('after %i steps of bind', async (after) => {
    await cutOff('bind', after);
    await succeeds(l1(...unbind, NIC));
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
    await cutOff('bind', after);
    await succeeds(l1(...bind, NIC));
    expect(await stateOf(NIC)).toBe('vfio-pci vfio-pci\ndriver=e1000e\ndriver_override=');
    await succeeds(l1(...unbind, NIC));
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
  });

  it.each([1, 2])('after %i steps of unbind', async (after) => {
    await succeeds(l1(...bind, NIC));
    await cutOff('unbind', after);
    await succeeds(l1(...unbind, NIC));
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
  });
});

describe('vfio-bind.sh', () => {
  it('does with the busybox of an initramfs what mmiobridge does', async () => {
    await sh(
      `mkdir -p /tmp/bin && busybox --install -s /tmp/bin && ln -sf /sbin/modprobe /tmp/bin`,
    );
    const busybox = ['env', 'PATH=/tmp/bin', 'busybox', 'sh', SCRIPT];
    const taken = await succeeds(l1(...busybox, '00:10.0', E1000));
    expect(taken).toMatch(/^vfio-bind: 0000:00:10\.0: e1000e -> vfio-pci\n.*e1000 -> vfio-pci\n$/);
    expect(await succeeds(l1(...busybox, NIC))).toContain('bound to vfio-pci already');
    expect(await stateOf(NIC)).toBe('vfio-pci vfio-pci\ndriver=e1000e\ndriver_override=');
    expect(await succeeds(mmiobridge('unbind', NIC))).toContain('its driver: e1000e');
    expect(await succeeds(l1(...busybox, '-u', E1000))).toContain('its driver is e1000\n');
    expect(await stateOf(E1000)).toMatch(untouched('e1000'));
  });

  it('takes the others where one cannot be had, and says so', async () => {
    const { status, stderr } = await l1(SCRIPT, '0000:00:13.0', '99:00.0', NIC);
    expect(stderr).toContain('vfio-pci does not take 0000:00:13.0');
    expect(stderr).toContain('there is no PCI device 0000:99:00.0');
    expect(stderr).toContain(`${NIC}: e1000e -> vfio-pci`);
    expect(status).toBe(1);
    expect(await stateOf('0000:00:13.0')).toMatch(untouched('none'));
    await succeeds(l1(SCRIPT, '-u', NIC));
    expect(await stateOf(NIC)).toMatch(untouched('e1000e'));
  });
});
