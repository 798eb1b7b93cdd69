import { join } from 'node:path';
import { Check, type CheckResult } from './check.ts';
import { isVirtual, textOf, type System } from './system.ts';

const check = new Check('kvm', '/dev/kvm');

export function checkKvm(system: System): CheckResult {
  const fault = system.accessFault(join(system.root, 'dev/kvm'));
  if (fault === undefined) return check.ok(`open to ${system.user.name}`);
  if (fault === 'EACCES' || fault === 'EPERM') {
    return check.failure(
      `not open to ${system.user.name} (${fault})`,
      `usermod -aG kvm ${system.user.name}, and log in again`,
    );
  }
  const flags = /^flags\s*:.*\b(vmx|svm)\b/m.exec(textOf(system, 'proc/cpuinfo'))?.[1];
  const seen = `not there (${fault}): guests run under TCG, many times slower`;
  if (flags !== undefined) {
    const module = flags === 'vmx' ? 'kvm_intel' : 'kvm_amd';
    return check.warning(`${seen}; the processor has ${flags}`, `modprobe ${module}`);
  }
  return check.warning(
    `${seen}; the processor shows neither vmx nor svm`,
    isVirtual(system)
      ? 'this is a virtual machine: let it nest (in its QEMU -cpu host; on its host kvm_intel.nested=1)'
      : 'switch on virtualization (VT-x, SVM) in the firmware',
  );
}
