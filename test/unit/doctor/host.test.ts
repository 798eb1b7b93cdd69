/** What is said of a host: each check on a healthy tree, and on one that lacks what it looks for. */
import { mkdirSync, rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { checkInterruptRemapping } from '../../../src/doctor/interrupt-remapping.ts';
import { checkIommu } from '../../../src/doctor/iommu.ts';
import { checkKvm } from '../../../src/doctor/kvm.ts';
import { checkLockedMemory } from '../../../src/doctor/locked-memory.ts';
import { checkVfioModules } from '../../../src/doctor/vfio-modules.ts';
import { checkVirtualization } from '../../../src/doctor/virtualization.ts';
import { RELEASE, closing, healthyTree, limits, systemOf, told } from '../../support/doctor.ts';
import type { SysfsTree } from '../../support/sysfs-tree.ts';

function remove(tree: SysfsTree, ...names: readonly string[]): void {
  for (const name of names) rmSync(tree.path(name), { recursive: true });
}

/** As it is when the kernel runs without. */
function switchIommuOff(tree: SysfsTree, words = 'quiet'): void {
  remove(tree, 'sys/class/iommu', 'sys/kernel/iommu_groups');
  mkdirSync(tree.path('sys/kernel/iommu_groups'));
  tree.file('proc/cmdline', `${words}\n`);
}

describe('the IOMMU', () => {
  it('is on', () => {
    using tree = healthyTree();
    const result = checkIommu(systemOf(tree));
    expect(told(result)).toBe('ok IOMMU: dmar0; 1 groups');
    expect(result.remedy).toBe('');
  });

  it.each([
    ['was not asked for', 'quiet', ['DMAR'], /was not told intel_iommu=on/, /^add intel_iommu=on/],
    ['is off', 'intel_iommu=off', ['DMAR'], /intel_iommu=off is on the/, /^remove intel_iommu=off/],
    ['is off for all', 'iommu=soft,off', ['DMAR'], /iommu=soft,off is/, /^remove iommu=soft,off/],
    ['is off on AMD', 'amd_iommu=off', ['IVRS'], /amd_iommu=off is on/, /^remove amd_iommu=off/],
    ['does not start on AMD', 'quiet', ['IVRS'], /ACPI IVRS/, /^dmesg \| grep -i 'AMD-Vi'$/],
    ['is off in the firmware', 'quiet', [], /no ACPI table/, /VT-d; then\nadd intel_iommu=on/],
  ])('%s', (_, words, tables, evidence, remedy) => {
    using tree = healthyTree();
    switchIommuOff(tree, words);
    remove(tree, 'sys/firmware/acpi/tables/DMAR');
    for (const table of tables) tree.file(`sys/firmware/acpi/tables/${table}`, '');
    const result = checkIommu(systemOf(tree));
    expect(result.status).toBe('failure');
    expect(result.evidence).toMatch(/^off: \/sys\/class\/iommu .* are empty; /);
    expect(result.evidence).toMatch(evidence);
    expect(result.remedy).toMatch(remedy);
  });

  it('is switched on in the firmware alone on AMD', () => {
    using tree = healthyTree();
    switchIommuOff(tree);
    remove(tree, 'sys/firmware/acpi/tables/DMAR');
    tree.file('proc/cpuinfo', 'vendor_id\t: AuthenticAMD\nflags\t\t: svm\n');
    expect(checkIommu(systemOf(tree)).remedy).toMatch(/^in the firmware .* AMD-Vi/);
  });

  it('of a virtual machine is given to it by its QEMU', () => {
    using tree = healthyTree();
    switchIommuOff(tree);
    remove(tree, 'sys/firmware/acpi/tables/DMAR');
    tree.file('proc/cpuinfo', 'vendor_id\t: AuthenticAMD\nflags\t\t: svm hypervisor\n');
    expect(checkIommu(systemOf(tree)).remedy).toContain('-device intel-iommu,intremap=on');
  });
});

describe('interrupt remapping', () => {
  const PLAIN = '  9:  0  0  IO-APIC   9-fasteoi   acpi\n 24:  1  0  PCI-MSI  0-edge  IR-x\n';
  const UNSAFE = 'sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts';

  it.each(['IR-IO-APIC', 'AMD-IR-MSI', 'IR-PCI-MSIX-0000:00:10.0'])('is on with %s', (chip) => {
    using tree = healthyTree();
    tree.file('proc/interrupts', ` 24:  1  0  ${chip}  0-edge  x\n`);
    const result = checkInterruptRemapping(systemOf(tree));
    expect(result.status).toBe('ok');
    expect(chip).toContain(/has (\S+)/.exec(result.evidence)?.[1] ?? '?');
  });

  it('is off', () => {
    using tree = healthyTree();
    tree.file('proc/interrupts', PLAIN.replace('IR-x', 'x'));
    const result = checkInterruptRemapping(systemOf(tree));
    expect(told(result)).toMatch(/^failure interrupt remapping: off: .*Operation not permitted$/);
    expect(result.remedy).toContain(`\necho 1 >/${UNSAFE}\n`);
    expect(result.remedy).toContain('>/etc/modprobe.d/vfio.conf');
  });

  it('is off, and vfio_iommu_type1 is not loaded yet', () => {
    using tree = healthyTree();
    tree.file('proc/interrupts', PLAIN.replace('IR-x', 'x'));
    remove(tree, UNSAFE);
    const { remedy } = checkInterruptRemapping(systemOf(tree));
    expect(remedy).toContain('\nmodprobe vfio_iommu_type1 allow_unsafe_interrupts=1\n');
  });

  it('was switched off', () => {
    using tree = healthyTree();
    tree.file('proc/interrupts', PLAIN.replace('IR-x', 'x'));
    tree.file('proc/cmdline', 'intel_iommu=on intremap=off\n');
    const result = checkInterruptRemapping(systemOf(tree));
    expect(result.evidence).toContain("intremap=off is on the kernel's command line");
    expect(result.remedy).toMatch(/^remove intremap=off from GRUB/);
  });

  it('is off, and the user has taken that upon them', () => {
    using tree = healthyTree();
    tree.file('proc/interrupts', PLAIN.replace('IR-x', 'x'));
    tree.file(UNSAFE, 'Y\n');
    const result = checkInterruptRemapping(systemOf(tree));
    expect(told(result)).toMatch(/^warning .*allow_unsafe_interrupts=Y.*forge interrupts$/);
  });

  it('is not told by the name of a device', () => {
    using tree = healthyTree();
    tree.file('proc/interrupts', PLAIN);
    expect(checkInterruptRemapping(systemOf(tree)).status).toBe('failure');
  });

  it('waits for the IOMMU', () => {
    using tree = healthyTree();
    tree.file('proc/interrupts', PLAIN);
    switchIommuOff(tree);
    expect(checkInterruptRemapping(systemOf(tree)).remedy).toBe('switch the IOMMU on first');
  });
});

describe('the modules', () => {
  const DEP = `kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n`;

  /** Of vfio-pci, which is not loaded; `modules.dep` has it. */
  function unloaded(tree: SysfsTree) {
    remove(tree, 'sys/module/vfio_pci');
    tree.file(`lib/modules/${RELEASE}/modules.dep`, DEP);
    return () => {
      const [result] = checkVfioModules(systemOf(tree));
      if (result === undefined) throw new Error('no result');
      return result;
    };
  }

  it('are loaded', () => {
    using tree = healthyTree();
    expect(checkVfioModules(systemOf(tree)).map(told)).toEqual([
      'ok module vfio-pci: loaded',
      'ok module vfio_iommu_type1: loaded',
    ]);
  });

  it('can be loaded', () => {
    using tree = healthyTree();
    const look = unloaded(tree);
    tree.file('etc/modprobe.d/x.conf', 'blacklist vfio-pci\noptions vfio-pci ids=8086:10d3\n');
    expect(told(look())).toBe('ok module vfio-pci: not loaded; modprobe vfio-pci loads it');
  });

  it('are built in', () => {
    using tree = healthyTree();
    const look = unloaded(tree);
    tree.file(`lib/modules/${RELEASE}/modules.builtin`, 'kernel/drivers/vfio/pci/vfio-pci.ko\n');
    expect(look().evidence).toBe('built into the kernel');
  });

  it('are not there', () => {
    using tree = healthyTree();
    const look = unloaded(tree);
    tree.file(`lib/modules/${RELEASE}/modules.dep`, 'kernel/drivers/vfio/pci/x-vfio-pci.ko:\n');
    const result = look();
    expect(told(result)).toMatch(new RegExp(`^failure .*modules of kernel ${RELEASE} in /lib`));
    expect(result.remedy).toContain('linux-image-amd64');
  });

  it('are replaced by a command', () => {
    using tree = healthyTree();
    const look = unloaded(tree);
    tree.file('etc/modprobe.d/no-vfio.conf', '# safe\ninstall vfio_pci /bin/false\n');
    const result = look();
    expect(result.status).toBe('failure');
    expect(result.evidence).toContain('/etc/modprobe.d/no-vfio.conf: install vfio_pci /bin/false');
    expect(result.remedy).toBe('remove that line, then: modprobe vfio-pci');
  });

  it('are banned when the kernel boots', () => {
    using tree = healthyTree();
    const look = unloaded(tree);
    tree.file('proc/cmdline', 'quiet module_blacklist=nouveau,vfio_pci\n');
    const result = look();
    expect(told(result)).toMatch(/^failure .*module_blacklist=nouveau,vfio_pci is on/);
    expect(result.remedy).toMatch(/^remove module_blacklist=nouveau,vfio_pci from/);
  });

  it('cannot be loaded any more', () => {
    using tree = healthyTree();
    const look = unloaded(tree);
    tree.file('proc/sys/kernel/modules_disabled', '1\n');
    const result = look();
    expect(told(result)).toMatch(/^failure .*kernel\.modules_disabled=1/);
    expect(result.remedy).toBe('echo vfio-pci >>/etc/modules-load.d/vfio.conf && reboot');
  });
});

describe('/dev/kvm', () => {
  it('is open', () => {
    using tree = healthyTree();
    expect(told(checkKvm(systemOf(tree)))).toBe('ok /dev/kvm: open to alice');
  });

  it('is closed', () => {
    using tree = healthyTree();
    const result = checkKvm(closing(tree, 'dev/kvm'));
    expect(told(result)).toBe('failure /dev/kvm: not open to alice (EACCES)');
    expect(result.remedy).toBe('usermod -aG kvm alice, and log in again');
  });

  it.each([
    ['vmx', 'GenuineIntel', 'modprobe kvm_intel'],
    ['svm', 'AuthenticAMD', 'modprobe kvm_amd'],
    ['none', 'GenuineIntel', 'switch on virtualization (VT-x, SVM) in the firmware'],
    ['hypervisor', 'GenuineIntel', /^this is a virtual machine: let it nest/],
  ])('is not there, and the processor has %s', (flag, vendor, remedy) => {
    using tree = healthyTree();
    remove(tree, 'dev/kvm');
    tree.file('proc/cpuinfo', `vendor_id\t: ${vendor}\nflags\t\t: fpu ${flag} sse\n`);
    const result = checkKvm(systemOf(tree));
    expect(told(result)).toMatch(/^warning .*not there \(ENOENT\): guests run under TCG/);
    expect(result.remedy).toMatch(remedy);
  });
});

describe('locked memory', () => {
  const MIB = 1024 * 1024;

  it.each([
    ['no limit', 'unlimited', 'ok', /^no limit for alice$/],
    ['a small one', String(8 * MIB), 'failure', /^alice may lock 8 MiB: no guest fits/],
    ['a large one', String(4096 * MIB), 'warning', /^alice may lock 4 GiB: guests must be smaller/],
  ])('has %s', (_, limit, status, evidence) => {
    using tree = healthyTree();
    tree.file('proc/self/limits', limits(limit));
    const result = checkLockedMemory(systemOf(tree));
    expect(result.status).toBe(status);
    expect(result.evidence).toMatch(evidence);
    expect(result.remedy.startsWith('ulimit -l unlimited\n')).toBe(status !== 'ok');
  });

  it('is not limited for root', () => {
    using tree = healthyTree();
    tree.file('proc/self/limits', limits('65536'));
    tree.file('proc/self/status', 'CapEff:\t000001ffffffffff\n');
    expect(checkLockedMemory(systemOf(tree)).status).toBe('ok');
  });

  it('is limited for a root that was stripped of the capability', () => {
    using tree = healthyTree();
    tree.file('proc/self/limits', limits('65536'));
    tree.file('proc/self/status', 'CapEff:\t000001ffffffbfff\n');
    expect(checkLockedMemory(systemOf(tree)).status).toBe('failure');
  });

  it.each([
    [512, 'ok', "QEMU's process 42 may lock 1 GiB, the guest has 512 MiB"],
    [2048, 'failure', "QEMU's process 42 may lock 1 GiB, and the guest has 2 GiB"],
  ])('of a QEMU whose guest has %i MiB', (mib, status, evidence) => {
    using tree = healthyTree();
    tree.file('proc/42/limits', limits(String(1024 * MIB)));
    tree.file('proc/42/status', 'CapEff:\t0\n');
    const result = checkLockedMemory(systemOf(tree), { pid: 42, guestBytes: mib * MIB });
    expect([result.status, result.evidence]).toEqual([status, evidence]);
  });
});

describe('the host itself', () => {
  it('is a real machine', () => {
    using tree = healthyTree();
    expect(told(checkVirtualization(systemOf(tree)))).toBe('ok this host: a real machine');
  });

  it('is a container', () => {
    using tree = healthyTree();
    tree.file('proc/2/comm', 'sleep\n');
    const result = checkVirtualization(systemOf(tree));
    expect(told(result)).toMatch(/^warning this host: a container/);
    expect(result.remedy).toContain('--device /dev/vfio');
  });

  it('is a virtual machine, with an IOMMU or without', () => {
    using tree = healthyTree();
    tree.file('proc/cpuinfo', 'flags\t\t: fpu hypervisor\n');
    tree.file('sys/class/dmi/id/sys_vendor', 'QEMU\n');
    expect(told(checkVirtualization(systemOf(tree)))).toMatch(
      /^ok .*virtual machine \(QEMU\) with/,
    );
    switchIommuOff(tree);
    expect(told(checkVirtualization(systemOf(tree)))).toMatch(/^warning .*an IOMMU of its own$/);
  });
});
