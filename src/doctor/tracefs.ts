import { mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { systemCodeOf } from '../base/errors.ts';
import { readNames } from '../host/sysfs.ts';
import { Check, type CheckResult, type Status } from './check.ts';
import { textOf, type System } from './system.ts';

const check = new Check('tracefs', 'KVM tracepoints');

const PLACES = ['sys/kernel/tracing', 'sys/kernel/debug/tracing'];
const EVENTS = ['kvm_exit', 'kvm_mmio', 'kvm_pio'];

/**
 * Whether the kernel's KVM tracepoints can be read: they tell the guest's program counter, and are
 * the only way with a QEMU that has no trace log. Makes an instance and removes it.
 *
 * @param needed whether there is no other way
 */
export function checkTracefs(system: System, needed: boolean): CheckResult {
  const status: Status = needed ? 'failure' : 'warning';
  const loss = needed ? 'nothing can be recorded' : 'the program counter is not recorded';
  const say = (why: string, ...remedy: readonly string[]): CheckResult =>
    check.result(status, `${why}: ${loss}`, ...remedy);

  const place = PLACES.find((path) => readNames(join(system.root, path, 'events')).length > 0);
  if (place === undefined) {
    if (PLACES.some((path) => isClosed(join(system.root, path)))) {
      return say(`/${PLACES[0]} is closed to ${system.user.name}`, 'run mmiobridge as root');
    }
    const lockdown = textOf(system, 'sys/kernel/security/lockdown');
    return lockdown.includes('[confidentiality]')
      ? say('the kernel is locked down (confidentiality)', 'boot without lockdown=confidentiality')
      : say(
          `tracefs is not mounted at /${PLACES[0]}`,
          `mount -t tracefs nodev /${PLACES[0]}`,
          'where that fails, the kernel was built without CONFIG_TRACING',
        );
  }
  const events = readNames(join(system.root, place, 'events/kvm'));
  const missing = EVENTS.filter((name) => !events.includes(name));
  if (missing.length > 0) {
    return say(
      `/${place}/events/kvm has no ${missing.join(', ')}`,
      'modprobe kvm_intel (or kvm_amd)',
    );
  }
  const fault = instanceFault(join(system.root, place, 'instances'));
  if (fault !== undefined) {
    return say(
      `no instance can be made in /${place}/instances (${fault})`,
      'run mmiobridge as root',
    );
  }
  return check.ok(`${EVENTS.join(', ')} in /${place}, and instances can be made`);
}

function isClosed(path: string): boolean {
  try {
    readdirSync(path);
    return false;
  } catch (error) {
    return systemCodeOf(error) === 'EACCES';
  }
}

function instanceFault(folder: string): string | undefined {
  const path = join(folder, `mmiobridge-doctor-${process.pid}`);
  try {
    mkdirSync(path);
    rmdirSync(path);
    return undefined;
  } catch (error) {
    return systemCodeOf(error) ?? 'EIO';
  }
}
