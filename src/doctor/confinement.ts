import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Check, type CheckResult } from './check.ts';
import { textOf, type System } from './system.ts';

const check = new Check('confinement', 'confinement');

const QEMU_CONF = 'etc/libvirt/qemu.conf';

/** Whether a QEMU that libvirt starts would be kept from writing the spool when we attach to it. */
export function checkConfinement(system: System): CheckResult {
  if (!existsSync(join(system.root, QEMU_CONF))) {
    return check.ok('no libvirt here, which would confine its QEMU');
  }
  const driver = textOf(system, QEMU_CONF).match(/^\s*security_driver\s*=.*$/m)?.[0] ?? '';
  if (/["']none["']/.test(driver)) return check.ok(`/${QEMU_CONF}: ${driver.trim()}`);
  if (textOf(system, 'sys/module/apparmor/parameters/enabled') === 'Y') {
    return check.warning(
      "AppArmor is on: a QEMU of libvirt's may write only where its profile allows",
      'when you attach to it: mmiobridge record --spool /dev/shm/NAME, which the profile has to allow:',
      "echo '/dev/shm/NAME/** rwk,' >>/etc/apparmor.d/local/abstractions/libvirt-qemu, and start the VM again",
    );
  }
  if (textOf(system, 'sys/fs/selinux/enforce') === '1') {
    return check.warning(
      "SELinux enforces: a QEMU of libvirt's may write only where its label allows",
      'when you attach to it: mkdir /dev/shm/NAME; chcon -t svirt_image_t /dev/shm/NAME; mmiobridge record --spool /dev/shm/NAME',
      'ausearch -m AVC -ts recent shows what was refused',
    );
  }
  return check.ok('libvirt is here; neither AppArmor nor SELinux confines its QEMU');
}
