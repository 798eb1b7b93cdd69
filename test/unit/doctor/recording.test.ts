/** What is said of QEMU, of the kernel's tracepoints, and of the place where recordings run. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { checkConfinement } from '../../../src/doctor/confinement.ts';
import { checkQemu } from '../../../src/doctor/qemu.ts';
import { checkRunFolder } from '../../../src/doctor/run-folder.ts';
import { thisSystem, type System } from '../../../src/doctor/system.ts';
import { checkTracefs } from '../../../src/doctor/tracefs.ts';
import type { QemuAbilities } from '../../../src/machine/qemu-abilities.ts';
import { ALL_EVENTS } from '../../../src/recording/source/trace-events.ts';
import { healthyTree, systemOf, told } from '../../support/doctor.ts';

const GIB = 1024 ** 3;

describe('QEMU', () => {
  const OPTIONS = [
    'x-no-mmap',
    'x-no-kvm-ioeventfd',
    'x-no-vfio-ioeventfd',
    'x-no-kvm-intx',
    'x-no-kvm-msi',
    'x-no-kvm-msix',
  ];
  const HEALTHY: QemuAbilities = {
    version: '7.2.22',
    tracesToLog: true,
    traceEvents: new Set(ALL_EVENTS.map((name) => name.replace('*', 'read'))),
    vfioPciOptions: new Set(OPTIONS),
  };
  const look = (change: Partial<QemuAbilities>) =>
    checkQemu('qemu', { ...HEALTHY, ...change }, ALL_EVENTS).filter(
      ({ status }) => status !== 'ok',
    );
  const less = (from: Iterable<string>, name: string) =>
    new Set([...from].filter((each) => each !== name));

  it('is as a recording needs it', () => {
    const results = checkQemu('qemu', HEALTHY, ALL_EVENTS);
    expect(results.map(told)).toEqual([
      'ok QEMU: 7.2.22 (qemu)',
      'ok trace backend: log',
      `ok trace events: has all that recordings need: ${ALL_EVENTS.length} names and patterns`,
      `ok vfio-pci options: has ${OPTIONS.join(', ')}`,
    ]);
  });

  it('is old', () => {
    expect(look({ version: '7.1.9' }).map(told)).toEqual([
      'warning QEMU: 7.1.9 (qemu) is older than 7.2',
    ]);
    expect(look({ version: '10.0.2' })).toEqual([]);
  });

  it('cannot print trace events', () => {
    const [result, ...rest] = look({ tracesToLog: false });
    expect(result && told(result)).toMatch(/^warning trace backend: .*without the backend log/);
    expect(result?.remedy).toMatch(/record --source kvm,.*\n.*--enable-trace-backends=log$/);
    expect(rest).toEqual([]);
  });

  it.each(['vfio_region_read', 'memory_region_ops_*'])('lacks the event %s', (event) => {
    const traceEvents = less(HEALTHY.traceEvents, event.replace('*', 'read'));
    expect(look({ traceEvents }).map(told)).toEqual([`failure trace events: it lacks ${event}`]);
  });

  it.each([
    ['x-no-mmap', 'failure', /it lacks x-no-mmap: BARs are mapped into the guest/],
    ['x-no-kvm-msix', 'warning', /it lacks x-no-kvm-msix$/],
  ])('lacks the option %s', (name, status, evidence) => {
    const [result] = look({ vfioPciOptions: less(OPTIONS, name) });
    expect([result?.id, result?.status]).toEqual(['vfio-options', status]);
    expect(result?.evidence).toMatch(evidence);
  });

  it('lacks vfio-pci', () => {
    const [result] = look({ vfioPciOptions: undefined });
    expect(result && told(result)).toBe('failure vfio-pci options: it has no device vfio-pci');
  });

  it('cannot be asked', () => {
    const error = new MmioError('not-found', 'there is no program qemu', {
      evidence: 'spawn qemu ENOENT',
      hint: 'install it',
    });
    const results = checkQemu('qemu', error, ALL_EVENTS);
    expect(results.map(told)).toEqual([
      'failure QEMU: there is no program qemu: spawn qemu ENOENT',
    ]);
    expect(results[0]?.remedy).toBe('install it');
  });
});

describe("the kernel's KVM tracepoints", () => {
  it('are there, and nothing stays behind', () => {
    using tree = healthyTree();
    const result = checkTracefs(systemOf(tree), false);
    expect(told(result)).toMatch(
      /^ok .*kvm_exit, kvm_mmio, kvm_pio in \/sys\/kernel\/tracing, and/,
    );
    // A second one would find its name taken.
    expect(checkTracefs(systemOf(tree), false)).toEqual(result);
  });

  it('are under debugfs on older kernels', () => {
    using tree = healthyTree();
    rmSync(tree.path('sys/kernel/tracing'), { recursive: true });
    for (const name of ['kvm_exit', 'kvm_mmio', 'kvm_pio'])
      tree.file(`sys/kernel/debug/tracing/events/kvm/${name}/id`, '');
    tree.file('sys/kernel/debug/tracing/instances/README', '');
    expect(checkTracefs(systemOf(tree), true).evidence).toContain('/sys/kernel/debug/tracing');
  });

  it.each([
    [false, 'warning', /the program counter is not recorded$/],
    [true, 'failure', /nothing can be recorded$/],
  ])('are not mounted (needed: %s)', (needed, status, loss) => {
    using tree = healthyTree();
    rmSync(tree.path('sys/kernel/tracing/events'), { recursive: true });
    const result = checkTracefs(systemOf(tree), needed);
    expect(result.status).toBe(status);
    expect(result.evidence).toMatch(/^tracefs is not mounted/);
    expect(result.evidence).toMatch(loss);
    expect(result.remedy).toMatch(/^mount -t tracefs nodev \/sys\/kernel\/tracing\n/);
  });

  it('are locked away', () => {
    using tree = healthyTree();
    rmSync(tree.path('sys/kernel/tracing/events'), { recursive: true });
    tree.file('sys/kernel/security/lockdown', 'none integrity [confidentiality]\n');
    expect(checkTracefs(systemOf(tree), false).remedy).toContain('lockdown=confidentiality');
  });

  it('are not those of KVM', () => {
    using tree = healthyTree();
    rmSync(tree.path('sys/kernel/tracing/events/kvm/kvm_mmio'), { recursive: true });
    const result = checkTracefs(systemOf(tree), false);
    expect(told(result)).toMatch(/^warning .*\/events\/kvm has no kvm_mmio:/);
    expect(result.remedy).toBe('modprobe kvm_intel (or kvm_amd)');
  });

  it('take no instance', () => {
    using tree = healthyTree();
    rmSync(tree.path('sys/kernel/tracing/instances'), { recursive: true });
    const result = checkTracefs(systemOf(tree), false);
    expect(told(result)).toMatch(/^warning .*no instance can be made in .* \(ENOENT\)/);
    expect(result.remedy).toBe('run mmiobridge as root');
  });
});

describe('the place of recordings', () => {
  const us = thisSystem();
  const withSpace = (freeBytes: number, inMemory = true): System => ({
    ...us,
    space: () => ({ freeBytes, inMemory }),
  });

  /** A folder of ours, and one in it that is not there yet. */
  function place(): { readonly dir: string; readonly run: string } & Disposable {
    const dir = mkdtempSync(join(tmpdir(), 'mmiobridge-doctor-'));
    return {
      dir,
      run: join(dir, 'deep', 'run'),
      [Symbol.dispose]: () => rmSync(dir, { recursive: true }),
    };
  }

  it('has room, before it is made and after', () => {
    using at = place();
    const result = checkRunFolder(withSpace(4 * GIB), at.run);
    expect(told(result)).toBe(`ok room for the spool: 4 GiB free for ${at.run}`);
    mkdirSync(at.run, { recursive: true, mode: 0o711 });
    expect(checkRunFolder(withSpace(4 * GIB), at.run)).toEqual(result);
  });

  it.each([
    [16 * 1024 ** 2, 'failure', /^only 16 MiB free for/],
    [0.5 * GIB, 'warning', /^only 512 MiB free for .*paused/],
  ])('has %i bytes', (free, status, evidence) => {
    using at = place();
    const result = checkRunFolder(withSpace(free), at.run);
    expect(result.status).toBe(status);
    expect(result.evidence).toMatch(evidence);
    expect(result.remedy).toMatch(/^mount -o remount,size=2G \/dev\/shm\n.*MMIOBRIDGE_RUN=DIR$/);
  });

  it('is on a disk', () => {
    using at = place();
    const result = checkRunFolder(withSpace(40 * GIB, false), at.run);
    expect(told(result)).toMatch(/^warning .*not on tmpfs/);
    expect(result.remedy).toMatch(/^unset MMIOBRIDGE_RUN/);
  });

  it('is told by the kernel: /dev/shm is in memory', () => {
    expect(us.space('/dev/shm').inMemory).toBe(true);
    expect(us.space('/proc').inMemory).toBe(false);
  });

  it('can be written by others', () => {
    using at = place();
    mkdirSync(at.run, { recursive: true });
    chmodSync(at.run, 0o777);
    const result = checkRunFolder(withSpace(4 * GIB), at.run);
    expect(told(result)).toMatch(/^failure .*not safely ours: owner \d+, mode 777; we are \d+$/);
    expect(result.remedy).toBe(`rm -r ${at.run}`);
  });

  it("is another user's", () => {
    using at = place();
    mkdirSync(at.run, { recursive: true });
    const other = { ...withSpace(4 * GIB), user: { uid: us.user.uid + 1, name: 'bob' } };
    expect(told(checkRunFolder(other, at.run))).toMatch(/^failure .*not safely ours: owner/);
  });

  it('cannot be written', () => {
    using at = place();
    const closed = { ...withSpace(4 * GIB), accessFault: () => 'EROFS' };
    const result = checkRunFolder(closed, at.run);
    expect(told(result)).toMatch(/^failure .* cannot be written by .* \(EROFS\)$/);
    expect(result.remedy).toMatch(/^MMIOBRIDGE_RUN=DIR/);
  });
});

describe('confinement', () => {
  it('is none without libvirt', () => {
    using tree = healthyTree();
    tree.file('sys/module/apparmor/parameters/enabled', 'Y\n');
    expect(told(checkConfinement(systemOf(tree)))).toMatch(/^ok .*no libvirt/);
  });

  it.each([
    ['AppArmor', 'sys/module/apparmor/parameters/enabled', 'Y', /abstractions\/libvirt-qemu/],
    ['SELinux', 'sys/fs/selinux/enforce', '1', /chcon -t svirt_image_t .*--spool/],
  ])('is %s', (name, file, text, remedy) => {
    using tree = healthyTree();
    tree.file('etc/libvirt/qemu.conf', '#security_driver = "selinux"\n');
    tree.file(file, `${text}\n`);
    const result = checkConfinement(systemOf(tree));
    expect(told(result)).toMatch(new RegExp(`^warning confinement: ${name} `));
    expect(result.remedy).toMatch(remedy);
  });

  it('was switched off in libvirt', () => {
    using tree = healthyTree();
    tree.file('sys/fs/selinux/enforce', '1\n');
    tree.file('etc/libvirt/qemu.conf', 'security_driver = "none"\n');
    expect(told(checkConfinement(systemOf(tree)))).toContain('security_driver = "none"');
  });
});
