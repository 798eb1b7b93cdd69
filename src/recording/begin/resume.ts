/** Goes on with a recording that was interrupted. */
import { MmioError } from '../../base/errors.ts';
import { isAlive, ourselves } from '../../machine/proc.ts';
import { Vm } from '../../machine/vm.ts';
import { QmpClient } from '../../qmp/client.ts';
import type { Notice } from '../../base/notice.ts';
import { SessionFolder, type SessionInfo } from '../session/session-folder.ts';
import { Spool } from '../spool/spool.ts';
import { type GoingOnOptions, type Started, assemble } from './assemble.ts';

/**
 * Goes on with a recording whose recorder was killed. Throws MmioError `refused` if it still runs,
 * `not-found` if there is none.
 */
export async function resumeRecording(id: string, options: GoingOnOptions): Promise<Started> {
  const dir = new SessionFolder(id);
  const before = await dir.readInfo();
  if (isAlive(before.recorder.pid, before.recorder.startTime)) {
    throw new MmioError('refused', `${id} is being recorded`, {
      evidence: `process ${before.recorder.pid} runs`,
      hint: '`mmiobridge status` shows it',
    });
  }
  if (before.outputs.includes('-')) {
    throw new MmioError('refused', 'a recording to standard output cannot be gone on with', {
      evidence: `outputs: ${before.outputs.join(', ')}`,
      hint: `what is left of it lies in ${before.spoolDir}: convert it`,
    });
  }
  const checkpoint = await dir.readCheckpoint();
  const info: SessionInfo = { ...before, recorder: ourselves() };
  const spool = await Spool.reopen(info.spoolDir, checkpoint.position);
  const vm = await reconnect(info, options.notice);
  await dir.removeControlSocket();
  try {
    // It may have died while it took itself off QEMU. Before the guard begins, which does the same.
    if (info.source === 'log' && vm?.holdsOpen(spool.currentPath) === false) {
      await vm.logInto(spool.nextPath);
      spool.advanceWriter();
    }
    if (!(await dir.isDropping())) await vm?.trace(true);
    return await assemble({ dir, spool, vm, info, options, child: undefined, checkpoint });
  } catch (error) {
    // QEMU talks to one at a time, and the connection would keep this process.
    await vm?.qmp.close();
    throw error;
  }
}

async function reconnect(info: SessionInfo, notice: Notice): Promise<Vm | undefined> {
  const { qemu } = info;
  if (qemu !== undefined && !isAlive(qemu.pid, qemu.startTime)) {
    notice('QEMU has ended meanwhile: what it left in the spool is written down');
    return undefined;
  }
  const qmp = await QmpClient.connect(info.qmpAddress);
  const { qmpAddress: address, traceEvents } = info;
  return new Vm(qmp, { address, process: qemu, traceEvents, onProblem: notice });
}
