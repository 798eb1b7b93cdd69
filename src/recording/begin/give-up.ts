/** Clears away what is left of a recording whose recorder was killed before it had begun. */
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError } from '../../base/errors.ts';
import type { Notice } from '../../base/notice.ts';
import { isAlive, processRef, processesOf, type ProcessRef } from '../../machine/proc.ts';
import { Vm } from '../../machine/vm.ts';
import { QmpClient } from '../../qmp/client.ts';
import type { SessionInfo } from '../session/info.ts';
import type { SessionFolder } from '../session/session-folder.ts';
import type { SourceKind } from '../source/recording-source.ts';

const END_GRACE_MS = 2000;
const END_POLL_MS = 20;

/**
 * Ends a QEMU that we started, whose guest has not run; puts another's back as it was. Returns what
 * to tell the user; throws MmioError where QEMU cannot be reached, and then nothing is removed.
 */
export async function giveUp(
  folder: SessionFolder,
  info: SessionInfo,
  kind: SourceKind,
  notice: Notice,
): Promise<MmioError> {
  const became = info.launched
    ? await endOurs(folder, info)
    : await letGo(info, kind, notice).then(() => 'QEMU is as it was');
  await rm(info.spoolDir, { recursive: true, force: true });
  await folder.remove();
  return new MmioError(
    'refused',
    `recording ${info.id} had not begun when its recorder was killed`,
    {
      evidence: became,
      hint: 'nothing is left of it: record again',
    },
  );
}

async function endOurs(folder: SessionFolder, { qemu }: SessionInfo): Promise<string> {
  // Its number is written down just after it has been started.
  const started = qemu ?? processesOf(folder.qmpSocket).map(processRef)[0];
  if (started === undefined || !lives(started)) return 'QEMU does not run';
  process.kill(started.pid, 'SIGTERM');
  for (let waitedMs = 0; lives(started); waitedMs += END_POLL_MS) {
    if (waitedMs >= END_GRACE_MS) process.kill(started.pid, 'SIGKILL');
    await sleep(END_POLL_MS);
  }
  return `QEMU (process ${started.pid}), whose guest had not run, was ended`;
}

function lives({ pid, startTime }: ProcessRef): boolean {
  return isAlive(pid, startTime);
}

async function letGo(info: SessionInfo, kind: SourceKind, notice: Notice): Promise<void> {
  const { qemu, qmpAddress: address, spoolDir } = info;
  if (qemu !== undefined && !lives(qemu)) return;
  const qmp = await QmpClient.connect(address);
  try {
    const vm = new Vm(qmp, { address, process: qemu, onProblem: notice });
    await kind.giveUp(vm, info.sourceInfo, { spoolDir, notice });
  } finally {
    await qmp.close();
  }
}
