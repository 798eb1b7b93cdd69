import { lstatSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Check, type CheckResult } from './check.ts';
import { sizeText, type System } from './system.ts';

const check = new Check('run-folder', 'room for the spool');

/** Below this the guest is paused all the time; below the other a slow output pauses it soon. */
const LEAST_BYTES = 32 * 1024 * 1024;
const PLENTY_BYTES = 1024 * 1024 * 1024;

/**
 * Whether the folder where recordings run is ours, in memory and large enough.
 *
 * @param path absolute; it is made at the first recording
 */
export function checkRunFolder(system: System, path: string): CheckResult {
  const place = existing(path);
  if (place === path) {
    const { uid, mode } = lstatSync(path);
    if (uid !== system.user.uid || (mode & 0o022) !== 0 || !lstatSync(path).isDirectory()) {
      const seen = `owner ${uid}, mode ${(mode & 0o777).toString(8)}; we are ${system.user.uid}`;
      return check.failure(`${path} is not safely ours: ${seen}`, `rm -r ${path}`);
    }
  }
  const fault = system.accessFault(place);
  if (fault !== undefined) {
    return check.failure(
      `${place} cannot be written by ${system.user.name} (${fault})`,
      'MMIOBRIDGE_RUN=DIR names another folder, best on tmpfs',
    );
  }
  const { freeBytes, inMemory } = system.space(place);
  const seen = `${sizeText(freeBytes)} free for ${path}`;
  const grow = [
    'mount -o remount,size=2G /dev/shm',
    'or name another folder with room: MMIOBRIDGE_RUN=DIR',
  ];
  if (freeBytes < LEAST_BYTES) return check.failure(`only ${seen}`, ...grow);
  if (!inMemory) {
    return check.warning(
      `${seen}, which is not on tmpfs: QEMU waits for the disk at every access`,
      'unset MMIOBRIDGE_RUN, or name a folder on tmpfs in it',
    );
  }
  return freeBytes < PLENTY_BYTES
    ? check.warning(`only ${seen}: the guest is paused when an output is slow`, ...grow)
    : check.ok(seen);
}

/** The folder itself, or the nearest above it that is there. */
function existing(path: string): string {
  for (let at = resolve(path); ; at = dirname(at)) {
    if (lstatSync(at, { throwIfNoEntry: false }) !== undefined || at === '/') return at;
  }
}
