import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readNames } from '../host/sysfs.ts';
import { Check, type CheckResult } from './check.ts';
import { isVirtual, kernelWords, textOf, type System } from './system.ts';

const check = new Check('iommu', 'IOMMU');

/** Whether the kernel has put devices into IOMMU groups; if not, what keeps it from it. */
export function checkIommu(system: System): CheckResult {
  const units = readNames(join(system.root, 'sys/class/iommu'));
  const groups = readNames(join(system.root, 'sys/kernel/iommu_groups'));
  if (groups.length > 0) {
    const which = units.length === 0 ? 'on' : units.join(', ');
    return check.ok(`${which}; ${groups.length} groups`);
  }
  const seen = 'off: /sys/class/iommu and /sys/kernel/iommu_groups are empty';
  const off = kernelWords(system).find((word) => /^(?:intel_|amd_)?iommu=(?:.*,)?off/.test(word));
  if (off !== undefined) {
    return check.failure(`${seen}; ${off} is on the kernel's command line`, ...without(off));
  }
  if (hasTable(system, 'DMAR')) {
    const why = 'the firmware has one (ACPI DMAR), and the kernel was not told intel_iommu=on';
    return check.failure(`${seen}; ${why}`, ...withWord('intel_iommu=on'));
  }
  if (hasTable(system, 'IVRS')) {
    const why = 'the firmware has one (ACPI IVRS), and the kernel does not use it';
    return check.failure(`${seen}; ${why}`, "dmesg | grep -i 'AMD-Vi'");
  }
  const why = 'the firmware tells of none (no ACPI table DMAR or IVRS)';
  return check.failure(`${seen}; ${why}`, ...firmwareRemedy(system));
}

function hasTable({ root }: System, name: string): boolean {
  return existsSync(join(root, 'sys/firmware/acpi/tables', name));
}

function firmwareRemedy(system: System): readonly string[] {
  if (isVirtual(system)) {
    return [
      'this is a virtual machine: give it an IOMMU, in its QEMU by',
      '-machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,caching-mode=on',
      ...withWord('intel_iommu=on'),
    ];
  }
  if (/^vendor_id\s*:\s*AuthenticAMD/m.test(textOf(system, 'proc/cpuinfo'))) {
    return [
      'in the firmware (BIOS), switch on AMD-Vi, also called IOMMU: no kernel word is needed',
    ];
  }
  return ['in the firmware (BIOS), switch on VT-d; then', ...withWord('intel_iommu=on')];
}

/** GRUB as Debian and its kin have it, and as Fedora and its kin. */
function withWord(word: string): readonly string[] {
  return [
    `add ${word} to GRUB_CMDLINE_LINUX in /etc/default/grub, then: update-grub && reboot`,
    `(Fedora, RHEL: grubby --update-kernel=ALL --args=${word} && reboot)`,
  ];
}

export function without(word: string): readonly string[] {
  return [
    `remove ${word} from GRUB_CMDLINE_LINUX in /etc/default/grub, then: update-grub && reboot`,
    `(Fedora, RHEL: grubby --update-kernel=ALL --remove-args=${word} && reboot)`,
  ];
}
