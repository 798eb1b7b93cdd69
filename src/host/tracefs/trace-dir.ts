import { constants, accessSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MmioError, messageOf } from '../../base/errors.ts';

/** Where distributions mount tracefs; the second within debugfs. */
const PLACES = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing'];

/**
 * The folder of tracefs, when KVM's tracepoints can be used from here. Nothing is mounted.
 *
 * @throws MmioError `refused` with the remedy: no tracefs, not permitted, or no events of KVM
 */
export function findTraceDir(places: readonly string[] = PLACES): string {
  const dir = places.find((place) => canSee(join(place, 'instances')));
  if (dir === undefined) throw notThere(places);
  try {
    accessSync(join(dir, 'instances'), constants.W_OK);
  } catch (error) {
    throw new MmioError('refused', "the kernel's tracepoints may not be used", {
      evidence: messageOf(error),
      hint: 'run as root',
      cause: error,
    });
  }
  if (!existsSync(join(dir, 'events/kvm/kvm_mmio/format'))) {
    throw new MmioError('refused', 'the kernel has no tracepoints of KVM', {
      evidence: `${dir}/events/kvm/kvm_mmio is not there`,
      hint: 'load kvm_intel or kvm_amd; a kernel without CONFIG_TRACEPOINTS has none',
    });
  }
  return dir;
}

function canSee(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

function notThere(places: readonly string[]): MmioError {
  const lockdown = /\[(integrity|confidentiality)\]/.exec(
    read('/sys/kernel/security/lockdown'),
  )?.[1];
  if (lockdown === 'confidentiality') {
    return new MmioError('refused', 'the kernel is locked down: it shows no tracepoints', {
      evidence: '/sys/kernel/security/lockdown: confidentiality',
      hint: 'boot with lockdown=integrity, or record without the tracepoints',
    });
  }
  const mounted = /^\S+ (\S+) tracefs /m.exec(read('/proc/mounts'))?.[1];
  return new MmioError('refused', "the kernel's tracepoints cannot be reached", {
    evidence: `no readable ${places.join(' or ')}; we are user ${process.getuid?.() ?? 0}`,
    hint:
      mounted === undefined ? 'as root: mount -t tracefs none /sys/kernel/tracing' : 'run as root',
  });
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
