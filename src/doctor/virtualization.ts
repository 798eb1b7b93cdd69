import { join } from 'node:path';
import { readNames } from '../host/sysfs.ts';
import { Check, type CheckResult } from './check.ts';
import { isVirtual, textOf, type System } from './system.ts';

const check = new Check('virtualization', 'this host');

/** Whether we are on a real machine, or in a virtual one or a container, where more can be missing. */
export function checkVirtualization(system: System): CheckResult {
  // A container does not see the kernel's own threads; images of one are used for real hosts, too.
  if (textOf(system, 'proc/2/comm') !== 'kthreadd') {
    return check.warning(
      'a container (process 2 is not kthreadd): it sees only the devices that it was given',
      'run mmiobridge outside, or start the container with:',
      '--device /dev/kvm --device /dev/vfio --ulimit memlock=-1 --shm-size 2g',
    );
  }
  if (!isVirtual(system)) return check.ok('a real machine');
  const vendor = textOf(system, 'sys/class/dmi/id/sys_vendor');
  const what = `a virtual machine${vendor === '' ? '' : ` (${vendor})`}`;
  return readNames(join(system.root, 'sys/kernel/iommu_groups')).length > 0
    ? check.ok(`${what} with an IOMMU of its own: its guests are nested`)
    : check.warning(
        `${what}: its guests are nested, and devices reach it only through an IOMMU of its own`,
        'run mmiobridge on the host that has the device',
      );
}
