import { join } from 'node:path';
import { readNames } from '../host/sysfs.ts';
import { Check, type CheckResult } from './check.ts';
import { without } from './iommu.ts';
import { kernelWords, textOf, type System } from './system.ts';

const check = new Check('interrupt-remapping', 'interrupt remapping');

const UNSAFE = '/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts';

/**
 * Whether the IOMMU checks interrupts: without, vfio_iommu_type1 refuses every group unless it was
 * told that it is fine. The kernel shows it by the names of its interrupt chips.
 */
export function checkInterruptRemapping(system: System): CheckResult {
  // Number, a count for each CPU, chip, name: Documentation/filesystems/proc.rst.
  const line = /^\s*\d+:(?:\s+\d+)+\s+((?:AMD-)?IR-\S+)/m.exec(textOf(system, 'proc/interrupts'));
  const chip = line?.[1];
  if (chip !== undefined) return check.ok(`on: /proc/interrupts has ${chip}`);
  if (readNames(join(system.root, 'sys/kernel/iommu_groups')).length === 0) {
    return check.failure('off, as the IOMMU is', 'switch the IOMMU on first');
  }
  const seen = 'off: no interrupt chip in /proc/interrupts is an IR- one';
  if (textOf(system, UNSAFE) === 'Y') {
    const why = 'vfio_iommu_type1 accepts groups without it (allow_unsafe_interrupts=Y)';
    return check.warning(`${seen}; ${why}: the guest could forge interrupts`, 'trust the guest');
  }
  const off = kernelWords(system).find((word) =>
    /^(?:intremap=(?:.*,)?off|noapic|nointremap)$/.test(word),
  );
  const loaded = textOf(system, UNSAFE) !== '';
  return check.failure(
    `${seen}${off === undefined ? '' : `; ${off} is on the kernel's command line`}; QEMU would say: Operation not permitted`,
    ...(off === undefined
      ? ['switch it on in the firmware (with VT-d or AMD-Vi), or, where the guest is trusted:']
      : [...without(off), 'or, where the guest is trusted:']),
    ...(loaded ? [`echo 1 >${UNSAFE}`] : ['modprobe vfio_iommu_type1 allow_unsafe_interrupts=1']),
    "echo 'options vfio_iommu_type1 allow_unsafe_interrupts=1' >/etc/modprobe.d/vfio.conf",
  );
}
