import { Check, type CheckResult } from './check.ts';
import { sizeText, textOf, type System } from './system.ts';

const check = new Check('locked-memory', 'locked memory');

/** Less than any guest with a driver for real hardware has. */
const SMALL_GUEST_BYTES = 256 * 1024 * 1024;
/** Of linux/capability.h: with it the limit does not count. */
const CAP_IPC_LOCK = 14n;

/**
 * Passthrough locks all of a guest's memory. Of our own process by default, since QEMU inherits its
 * limits; or of a QEMU that runs, against the memory that its guest has.
 */
export function checkLockedMemory(
  system: System,
  qemu?: { readonly pid: number; readonly guestBytes: number },
): CheckResult {
  const process = qemu?.pid ?? 'self';
  const whose = qemu === undefined ? system.user.name : `QEMU's process ${qemu.pid}`;
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(textOf(system, `proc/${process}/status`))?.[1];
  if (((BigInt(`0x${effective ?? '0'}`) >> CAP_IPC_LOCK) & 1n) === 1n) {
    return check.ok(`no limit for ${whose} (CAP_IPC_LOCK)`);
  }
  const limit = /^Max locked memory\s+(\w+)/m.exec(textOf(system, `proc/${process}/limits`))?.[1];
  if (limit === 'unlimited') return check.ok(`no limit for ${whose}`);
  if (limit === undefined) {
    return check.warning(`/proc/${process}/limits could not be read`, 'run this as root');
  }
  const limitBytes = Number(limit);
  const remedy = [
    'ulimit -l unlimited',
    `for good: echo '${system.user.name} - memlock unlimited' >/etc/security/limits.d/vfio.conf, and log in again`,
  ];
  const least = qemu?.guestBytes ?? SMALL_GUEST_BYTES;
  const allowed = `${whose} may lock ${sizeText(limitBytes)}`;
  if (qemu !== undefined) {
    const guest = `the guest has ${sizeText(least)}`;
    return limitBytes > least
      ? check.ok(`${allowed}, ${guest}`)
      : check.failure(`${allowed}, and ${guest}`, ...remedy);
  }
  return limitBytes < least
    ? check.failure(`${allowed}: no guest fits into that`, ...remedy)
    : check.warning(`${allowed}: guests must be smaller (-m)`, ...remedy);
}
