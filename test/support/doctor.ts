import type { CheckResult } from '../../src/doctor/check.ts';
import { thisSystem, type System } from '../../src/doctor/system.ts';
import { SysfsTree } from './sysfs-tree.ts';

export const NIC = '0000:01:00.0';
export const RELEASE = '6.1.0-42-amd64';

/** A host on which everything is as passthrough needs it; a test takes away what it is about. */
export function healthyTree(): SysfsTree {
  const tree = new SysfsTree();
  tree.device({ address: NIC, group: 7, driver: 'vfio-pci' });
  const files = {
    'proc/2/comm': 'kthreadd\n',
    'proc/cmdline': 'BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet intel_iommu=on\n',
    'proc/cpuinfo': 'vendor_id\t: GenuineIntel\nflags\t\t: fpu vme vmx sse\n',
    'proc/interrupts':
      '  9:  0  0  IR-IO-APIC   9-fasteoi   acpi\n 24:  1  0  IR-PCI-MSI  0-edge  x\n',
    'proc/sys/kernel/osrelease': `${RELEASE}\n`,
    'proc/sys/kernel/modules_disabled': '0\n',
    'proc/self/status': 'Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n',
    'proc/self/limits': limits('unlimited'),
    'sys/class/iommu/dmar0/name': '',
    'sys/firmware/acpi/tables/DMAR': '',
    'sys/module/vfio_pci/refcnt': '1\n',
    'sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts': 'N\n',
    'sys/kernel/tracing/events/kvm/kvm_exit/id': '1\n',
    'sys/kernel/tracing/events/kvm/kvm_mmio/id': '2\n',
    'sys/kernel/tracing/events/kvm/kvm_pio/id': '3\n',
    'sys/kernel/tracing/instances/README': '',
    'dev/kvm': '',
    'dev/vfio/vfio': '',
    'dev/vfio/7': '',
  };
  for (const [name, text] of Object.entries(files)) tree.file(name, text);
  return tree;
}

export function limits(locked: string): string {
  return [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    `Max locked memory         ${locked.padEnd(20)} ${locked.padEnd(20)} bytes     `,
  ].join('\n');
}

/** The tree as alice sees it; root's own rights do not count. */
export function systemOf(tree: SysfsTree, change: Partial<System> = {}): System {
  const closed = (path: string): string | undefined => {
    const fault = thisSystem().accessFault(path);
    return fault === 'ENOENT' ? fault : undefined;
  };
  return {
    ...thisSystem(tree.root),
    user: { uid: 1000, name: 'alice' },
    accessFault: closed,
    ...change,
  };
}

/** A system in which alice may not open these. */
export function closing(tree: SysfsTree, ...paths: readonly string[]): System {
  const open = systemOf(tree);
  return {
    ...open,
    accessFault: (path) =>
      paths.some((each) => path === tree.path(each)) ? 'EACCES' : open.accessFault(path),
  };
}

/** A result on one line, without its remedy. */
export function told({ status, title, evidence }: CheckResult): string {
  return `${status} ${title}: ${evidence}`;
}
