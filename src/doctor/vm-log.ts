import { accessSync, chownSync, constants, existsSync, rmSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { MmioError, messageOf } from '../base/errors.ts';
import { makeFolders } from '../base/make-folders.ts';
import { readText } from '../host/sysfs.ts';
import { stampsMessages } from '../machine/argv-user.ts';
import { probeWritable } from '../machine/log-control.ts';
import { cmdlineOf } from '../machine/proc.ts';
import { Check, type CheckResult } from './check.ts';
import type { RunningVm } from './running-vm.ts';
import type { System } from './system.ts';

export function checkTimestamps({ process }: RunningVm): CheckResult {
  const check = new Check('timestamps', 'timestamps');
  const argv = process === undefined ? [] : cmdlineOf(process.pid);
  if (stampsMessages(argv)) return check.ok('on: times are those of QEMU');
  const seen = argv.length === 0 ? "QEMU's command line cannot be seen from here" : 'off';
  return check.warning(
    `${seen}: times are then those of the poll, about 10 ms apart`,
    'start QEMU with -msg timestamp=on',
  );
}

/**
 * Has QEMU open a file where its log would go, as an attaching recording does.
 *
 * @param runFolder where recordings are; made and removed again if it is not there
 */
export async function checkLog(
  system: System,
  vm: RunningVm,
  runFolder: string,
): Promise<CheckResult> {
  const check = new Check('log-file', 'log of the VM');
  const folder = join(runFolder, `doctor-${process.pid}`);
  const path = join(folder, '000001');
  const isNew = !existsSync(runFolder);
  try {
    await makeFolders(folder, 0o711);
    const owner = vm.process?.uid;
    if (owner !== undefined && system.user.uid === 0) chownSync(folder, owner, -1);
    await probeWritable(vm.qmp, path);
    accessSync(path, constants.R_OK);
    return check.ok(`QEMU can log into ${runFolder}, and we can read it`);
  } catch (error) {
    const words = error instanceof MmioError ? (error.evidence ?? error.message) : messageOf(error);
    const pid = vm.process?.pid;
    const label = pid === undefined ? '' : (readText(`/proc/${pid}/attr/current`) ?? '');
    const who = vm.process === undefined ? '' : `, user ${vm.process.uid}`;
    return check.failure(
      `QEMU cannot log where we can read it (${words}${who}${label === '' ? '' : `, confined by ${label}`})`,
      ...(system.user.uid === 0
        ? []
        : ['run mmiobridge as root, or as the user that QEMU runs as']),
      'name a folder where QEMU may write: mmiobridge record --spool DIR',
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
    if (isNew) removeIfEmpty(runFolder);
  }
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // A recording has begun there meanwhile, or it could not be made.
  }
}
