/**
 * What doctor says in the lab's L1, a real passthrough host: first all is well, then one thing
 * after the other is broken, and it is what is named.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CheckResult } from '../../src/doctor/check.ts';
import { bootL1 } from '../support/lab.ts';
import { scriptLines } from '../support/scripts.ts';

const NIC = '0000:00:10.0';
/** They share a group: e1000 with its driver, edu without. */
const E1000 = '0000:01:01.0';
const EDU = '0000:01:02.0';

interface Report {
  readonly status: string;
  readonly checks: readonly (CheckResult & { readonly group: string })[];
}

let state: string;

/** Runs lines of shell in L1, as root; throws with its words where one of them fails. */
async function inL1(script: string): Promise<string> {
  const run = ['run', state, '--timeout', '120', 'sh', '-euc', script];
  return (await scriptLines('lab/l1.sh', run)).join('\n');
}

interface Scene {
  /** Lines of shell before, in a mount namespace that ends with the command. */
  readonly before?: string;
  /** A command that runs the rest of its line as another. */
  readonly as?: string;
}

async function examine(args = '', { before = '', as = '' }: Scene = {}): Promise<Report> {
  const script = join(state, 'share', 'scene.sh');
  writeFileSync(
    script,
    `set -eu\n${before}\n${as} node dist/cli/main.js doctor --json ${args} || [ $? = 1 ]\n`,
  );
  return JSON.parse(await inL1(`unshare -m sh ${script}`)) as Report;
}

/** What is not OK: id and status of each. */
function faults({ checks }: Report): string[] {
  return checks.filter(({ status }) => status !== 'ok').map(({ id, status }) => `${id} ${status}`);
}

function only({ checks }: Report, id: string): CheckResult {
  const found = checks.filter((check) => check.id === id);
  expect(found, id).toHaveLength(1);
  return found[0] as CheckResult;
}

/** Binds a device, with no look at what else is in its group. */
function bind(address: string, driver: string): string {
  const device = `/sys/bus/pci/devices/${address}`;
  return [
    `echo ${driver} >${device}/driver_override`,
    `[ ! -e ${device}/driver ] || echo ${address} >${device}/driver/unbind`,
    `echo ${address} >/sys/bus/pci/drivers_probe`,
  ].join('\n');
}

beforeAll(async () => {
  state = mkdtempSync(join(tmpdir(), 'mmiobridge-l1-'));
  await bootL1(state, process.pid);
});

afterAll(async () => {
  await scriptLines('lab/l1.sh', ['stop', state]);
  rmSync(state, { recursive: true, force: true });
});

describe('before vfio-pci is loaded', () => {
  test('what is missing is the device, and the remedy mends it', async () => {
    const report = await examine(`--device ${NIC}`);
    expect(faults(report)).toEqual(['device failure', 'iommu-group failure']);
    expect(only(report, 'device').evidence).toMatch(/ is bound to e1000e, not to vfio-pci$/);
    const { remedy } = only(report, 'device');
    expect(remedy).toBe(`mmiobridge bind ${NIC}`);

    const banned = await examine(`--device ${NIC}`, {
      before: `mount -t tmpfs none /etc/modprobe.d
        echo 'install vfio-pci /bin/false' >/etc/modprobe.d/no.conf
        ! modprobe vfio-pci`,
    });
    const [module] = banned.checks.filter(
      ({ id, status }) => `${id} ${status}` === 'vfio-modules failure',
    );
    expect(module?.evidence).toContain('/etc/modprobe.d/no.conf: install vfio-pci /bin/false');

    await inL1(remedy.replace('mmiobridge', 'node dist/cli/main.js'));
    const mended = await examine();
    expect(faults(mended)).toEqual([]);
    expect(mended.status).toBe('ok');
  });
});

describe('with the device bound', () => {
  beforeAll(async () => {
    await inL1(`modprobe vfio-pci\n${bind(NIC, 'vfio-pci')}`);
  });

  test('all is OK, and the text says so', async () => {
    const text = await inL1('node dist/cli/main.js doctor');
    expect(text).toMatch(/^ {2}OK {7}IOMMU +dmar0; \d+ groups$/m);
    expect(text).toMatch(/^ {2}OK {7}interrupt remapping +on: \/proc\/interrupts has IR-/m);
    expect(text).toMatch(/\nall OK: a recording can be complete$/);
    expect(text).not.toMatch(/warning|FAILURE|→/);
  });

  test('memory that may not be locked', async () => {
    const report = await examine('', {
      before: 'ulimit -l 8192',
      as: 'setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock',
    });
    expect(faults(report)).toEqual(['locked-memory failure']);
    expect(only(report, 'locked-memory').evidence).toMatch(/^root may lock 8 MiB/);
  });

  test('an ordinary user', async () => {
    const as = 'setpriv --reuid=65534 --regid=65534 --clear-groups';
    const report = await examine('', { before: 'chmod 600 /dev/kvm\nulimit -l unlimited', as });
    expect(faults(report)).toEqual(['kvm failure', 'vfio-node failure', 'tracefs warning']);
    expect(only(report, 'kvm').remedy).toBe('usermod -aG kvm nobody, and log in again');
    const node = report.checks.find(({ status, id }) => id === 'vfio-node' && status !== 'ok');
    expect(node?.remedy).toMatch(/^chown nobody \/dev\/vfio\/\d+$/m);

    const mended = await examine('', {
      before: `chmod 666 /dev/kvm\nulimit -l unlimited\n${node?.remedy.split('\n')[0] ?? ''}`,
      as,
    });
    expect(faults(mended)).toEqual(['tracefs warning']);
  });

  test('KVM that is not loaded', async () => {
    const report = await examine('', { before: 'rmmod kvm_amd' });
    await inL1('modprobe kvm_amd');
    const kvm = only(report, 'kvm');
    expect(faults(report)).toContain('kvm warning');
    expect([kvm.evidence, kvm.remedy]).toEqual([
      expect.stringMatching(/^not there \(ENOENT\): guests run under TCG/),
      'modprobe kvm_amd',
    ]);
  });

  const WITHOUT_TRACEFS = 'umount /sys/kernel/debug\numount /sys/kernel/tracing';

  test('tracefs that is not mounted, and the remedy mends it', async () => {
    const report = await examine('', { before: WITHOUT_TRACEFS });
    expect(faults(report)).toEqual(['tracefs warning']);
    const [mount = ''] = only(report, 'tracefs').remedy.split('\n');
    expect(mount).toMatch(/^mount /);
    const mended = await examine('', { before: `${WITHOUT_TRACEFS}\n${mount}` });
    expect(faults(mended)).toEqual([]);
  });

  test('a QEMU without the backend log: then tracefs is what everything needs', async () => {
    const qemu = join(state, 'share', 'qemu-without-log');
    writeFileSync(
      qemu,
      `#!/bin/sh\n[ "$1" != -d ] || { qemu-system-x86_64 -d help | grep -v trace:; exit 1; }\nexec qemu-system-x86_64 "$@"\n`,
      { mode: 0o755 },
    );
    expect(faults(await examine(`--qemu ${qemu}`))).toEqual(['trace-log warning']);
    const report = await examine(`--qemu ${qemu}`, { before: WITHOUT_TRACEFS });
    expect(faults(report)).toEqual(['trace-log warning', 'tracefs failure']);
    expect(only(report, 'tracefs').evidence).toMatch(/nothing can be recorded$/);
  });

  test('a small /dev/shm, and the remedy mends it', async () => {
    const before = 'mount -t tmpfs -o size=16m none /dev/shm';
    const report = await examine('', { before });
    expect(faults(report)).toEqual(['run-folder failure']);
    expect(only(report, 'run-folder').evidence).toMatch(/^only 16 MiB free for \/dev\/shm\//);
    const [grow = ''] = only(report, 'run-folder').remedy.split('\n');
    expect(faults(await examine('', { before: `${before}\n${grow}` }))).toEqual([]);
  });

  test('a container', async () => {
    const report = await examine('', {
      before: 'exec unshare -p -f --mount-proc sh -c "node dist/cli/main.js doctor --json"',
    });
    expect(faults(report)).toEqual(['virtualization warning']);
  });

  test('a device of the group that its own driver holds', async () => {
    await inL1(`modprobe e1000\n${bind(EDU, 'vfio-pci')}`);
    const report = await examine(`--device ${EDU.slice(5)}`);
    expect(faults(report)).toEqual(['iommu-group failure']);
    expect(only(report, 'iommu-group').evidence).toBe(
      `not viable: ${E1000} (8086:100e) is bound to e1000`,
    );
    expect(only(report, 'iommu-group').remedy).toMatch(new RegExp(`^mmiobridge bind ${E1000}\n`));
    await inL1(bind(EDU, ''));
  });
});

describe('a VM in L1', () => {
  beforeAll(async () => {
    await inL1(`modprobe vfio-pci\n${bind(NIC, 'vfio-pci')}`);
  });

  /** Starts a guest whose firmware maps the device's BARs, and looks at it. */
  function examineVm(options: string, more = ''): Promise<Report> {
    return examine('--qmp /tmp/vm/qmp.sock', {
      before: `mkdir -p /tmp/vm
        qemu-system-x86_64 -machine q35,accel=kvm -cpu host -m 256 -nodefaults -display none \\
          -device vfio-pci,host=${NIC},id=dut${options} ${more} -D /tmp/vm/log \\
          -trace pci_update_mappings_add -qmp unix:/tmp/vm/qmp.sock,server=on,wait=off &
        trap "kill $! && wait" EXIT
        until grep -q ' 3,0xf' /tmp/vm/log; do sleep 0.1; done
        sleep 3`,
    });
  }

  const bars = ({ checks }: Report) =>
    checks
      .filter(({ id }) => id === 'bar')
      .map(({ title, status, evidence }) => `${status} ${title} ${evidence.split(/[:,] /)[0]}`);

  test('whose device is mapped into the guest', async () => {
    const report = await examineVm(',x-no-mmap=off');
    expect(report.status).toBe('failure');
    expect(bars(report)).toEqual([
      'failure dut BAR0 bypassed',
      'failure dut BAR1 bypassed',
      'ok dut BAR2 trapped',
      'ok dut BAR3 trapped',
      'failure dut BAR3 bypassed',
    ]);
    const [bar] = report.checks.filter(({ id }) => id === 'bar');
    expect(bar?.evidence).toMatch(/\(info mtree: .*, ramd\): 0000:00:10\.0 BAR 0 mmaps\[0\]/);
    expect(bar?.remedy).toContain(`-device vfio-pci,host=${NIC},x-no-mmap=on`);
    expect(only(report, 'timestamps').status).toBe('warning');
    expect(only(report, 'short-cuts').remedy).toContain('x-no-kvm-msix=on');
    expect(only(report, 'log-file').status).toBe('ok');
  });

  test('whose device is trapped', async () => {
    const noShortCuts = ['kvm-ioeventfd', 'vfio-ioeventfd', 'kvm-intx', 'kvm-msi', 'kvm-msix'];
    const options = noShortCuts.map((name) => `,x-no-${name}=on`).join('');
    const report = await examineVm(`,x-no-mmap=on${options}`, '-msg timestamp=on');
    expect(bars(report)).toEqual([
      'ok dut BAR0 trapped',
      'ok dut BAR1 trapped',
      'ok dut BAR2 trapped',
      'ok dut BAR3 trapped',
    ]);
    expect(faults(report)).toEqual([]);
  });
});
