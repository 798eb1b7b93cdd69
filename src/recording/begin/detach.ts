/** Takes a recording off its QEMU, and gives the user what is theirs of its log. */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { restoreLog } from '../../machine/log-control.ts';
import { openFilesOf } from '../../machine/proc.ts';
import { restoreTraceState } from '../../machine/trace-control.ts';
import type { Vm } from '../../machine/vm.ts';
import { QemuLogDecoder } from '../../sources/qemu-log/decoder.ts';
import type { Notice } from '../../base/notice.ts';
import type { SessionInfo } from '../session/session-folder.ts';
import type { UserLogWriter } from '../run/user-log.ts';

/** How often a QEMU that does not answer is asked again to let go of the recording. */
const DETACH_RETRY_MS = 500;

/** For how long QEMU is waited for to close a file that it has left. */
const CLOSE_LIMIT_MS = 2000;

/**
 * Takes a recording off its QEMU: ours is ended, another's is put back as it was. Without QMP
 * nothing can keep QEMU from logging into the spool, so that the recording goes on until it answers.
 */
export async function detach(
  vm: Vm | undefined,
  info: SessionInfo,
  notice: Notice,
  userLog: UserLogWriter | undefined,
): Promise<void> {
  if (vm === undefined) return;
  if (info.launched) {
    await vm.quit();
    return;
  }
  const { restore } = info;
  if (restore === undefined) return;
  const afters: string[] = [];
  for (let told = false; vm.isAlive; told = true) {
    try {
      // One event goes off after the other: the recording ends where all are still on.
      const after = join(info.spoolDir, `after-${afters.length + 1}`);
      afters.push(after);
      await vm.logInto(after);
      await putBack(vm, restore, notice);
      break;
    } catch (error) {
      const mayAnswer = error instanceof MmioError && error.code === 'timeout';
      if (vm.qmp.state === 'ready' && !mayAnswer) {
        notice(`QEMU is not quite as it was: ${describeError(error)}`);
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
  await waitUntilClosed(vm, info.spoolDir);
  for (const after of afters) await forwardUserLog(after, info, userLog);
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

/** What a decoder has to do with lines that are the user's. */
export function passingOn(info: SessionInfo, userLog: UserLogWriter | undefined) {
  if (userLog === undefined) return {};
  const wants = (info.userLog?.patterns.length ?? 0) > 0;
  return {
    onOtherLine: (line: Uint8Array) => userLog.line(line),
    ...(wants && { alsoOther: (name: string) => userLog.wantsAlso(name) }),
  };
}

/** Gives the user what is theirs of a file of QEMU's log that is no part of the recording. */
export async function forwardUserLog(
  path: string,
  info: SessionInfo,
  userLog: UserLogWriter | undefined,
): Promise<void> {
  if (userLog === undefined) return;
  const decoder = new QemuLogDecoder(passingOn(info, userLog));
  const skip = () => {
    while (decoder.next() !== undefined);
  };
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      decoder.feed(chunk);
      skip();
    }
  } catch (error) {
    // QEMU did not get as far as making it.
    if (systemCodeOf(error) !== 'ENOENT') throw error;
  }
  decoder.finish();
  skip();
  await userLog.flush();
}

async function putBack(
  vm: Vm,
  { events, log }: NonNullable<SessionInfo['restore']>,
  notice: Notice,
): Promise<void> {
  const qmp = await vm.connected();
  await restoreTraceState(qmp, new Map(events));
  const restored = await restoreLog(qmp, log);
  if (restored.note !== undefined) notice(restored.note);
}

function describeError(error: unknown): string {
  const evidence = error instanceof MmioError ? error.evidence : undefined;
  return evidence === undefined ? messageOf(error) : `${messageOf(error)} (${evidence})`;
}
