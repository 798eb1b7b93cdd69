/** Takes a recording off a QEMU that goes on, and gives the user what is theirs of its log. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError, describeError } from '../../../base/errors.ts';
import type { Notice } from '../../../base/notice.ts';
import { restoreLog } from '../../../machine/log-control.ts';
import { openFilesOf } from '../../../machine/proc.ts';
import { restoreTraceState } from '../../../machine/trace-control.ts';
import type { Vm } from '../../../machine/vm.ts';
import type { UserLogWriter } from '../../session/user-log.ts';
import type { LogInfo } from './state.ts';
import { forwardUserLog } from './user-lines.ts';

/** How often a QEMU that does not answer is asked again to let go of the recording. */
const DETACH_RETRY_MS = 500;
/** For how long QEMU is waited for to close a file that it has left. */
const CLOSE_LIMIT_MS = 2000;

/**
 * Puts another's QEMU back as it was. Without QMP nothing can keep it from logging into the spool,
 * so that the recording goes on until it answers.
 */
export async function detachFromLog(
  vm: Vm,
  restore: NonNullable<LogInfo['restore']>,
  spoolDir: string,
  options: { readonly notice: Notice; readonly userLog: UserLogWriter | undefined },
): Promise<void> {
  const { notice, userLog } = options;
  const afters: string[] = [];
  for (let told = false; vm.isAlive; told = true) {
    try {
      // One event goes off after the other: the recording ends where all are still on.
      const after = join(spoolDir, `after-${afters.length + 1}`);
      afters.push(after);
      await vm.logInto(after);
      await putBack(vm, restore, notice);
      break;
    } catch (error) {
      const mayAnswer = error instanceof MmioError && error.code === 'timeout';
      if (vm.qmp.state === 'ready' && !mayAnswer) {
        notice(`QEMU could not be put back as it was: ${describeError(error)}`);
        break;
      }
      if (!told && vm.isAlive) {
        notice(
          `QEMU cannot be told to end the recording, which goes on until it can: ${describeError(error)}`,
        );
      }
      await Promise.race([sleep(DETACH_RETRY_MS), vm.ended]);
    }
  }
  await waitUntilClosed(vm, spoolDir);
  for (const after of afters) await forwardUserLog(after, userLog);
}

/** A vCPU may be in the middle of a line: QEMU closes a file (or all below a folder) when none is. */
export async function waitUntilClosed(vm: Vm, path: string): Promise<void> {
  const { process } = vm;
  const deadline = Date.now() + CLOSE_LIMIT_MS;
  const isIt = (open: string) => open === path || open.startsWith(`${path}/`);
  while (process !== undefined && Date.now() < deadline) {
    if (openFilesOf(process.pid)?.some(isIt) !== true) break;
    await sleep(5);
  }
}

async function putBack(
  vm: Vm,
  { events, log, wasSilent }: NonNullable<LogInfo['restore']>,
  notice: Notice,
): Promise<void> {
  const qmp = await vm.connected();
  await restoreTraceState(qmp, new Map(events));
  const restored = await restoreLog(qmp, log);
  if (restored.note !== undefined && !wasSilent) notice(restored.note);
}
