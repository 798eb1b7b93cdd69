/** One recording of a QEMU at a time: it has one log, and one way to be told where to. */
import { MmioError } from '../../base/errors.ts';
import type { Vm } from '../../machine/vm.ts';
import { findSessions, type ListedSession, type SessionFolder } from '../session/session-folder.ts';

/** The spool of any recording, whoever made it; of one that was deleted the name goes on. */
const SPOOL_FILE = /^.*\/(?:mmiobridge-)?\d{8}T\d{6}-\d+\/(?:spool\/)?(?:log-)?\d{6}$/;

/** Throws MmioError `refused` where another recorder has a hand in this QEMU, or has left it there. */
export async function requireAlone(vm: Vm, ours: SessionFolder): Promise<void> {
  const { process } = vm;
  if (process === undefined) return;
  const { sessions } = await findSessions();
  const other = sessions.find(
    ({ info: { id, qemu } }) =>
      id !== ours.id && qemu?.pid === process.pid && qemu.startTime === process.startTime,
  );
  if (other !== undefined) throw inTheWay(other, process.pid);
  const file = vm
    .openFiles()
    ?.find((path) => SPOOL_FILE.test(path) && !path.startsWith(`${ours.path}/`));
  if (file === undefined) return;
  throw new MmioError('refused', 'this QEMU is recorded by another mmiobridge', {
    evidence: `process ${process.pid} logs into ${file}`,
    hint: 'look with `mmiobridge status` as the user who records it, and with its MMIOBRIDGE_RUN',
  });
}

function inTheWay({ info, alive }: ListedSession, pid: number): MmioError {
  const { id, recorder } = info;
  if (alive) {
    return new MmioError('refused', 'this QEMU is being recorded already', {
      evidence: `recording ${id}, by process ${recorder.pid}; QEMU is process ${pid}`,
      hint: 'it can have more outputs, and --live: end it, and record with all of them',
    });
  }
  return new MmioError('refused', 'a recording of this QEMU was interrupted, and waits', {
    evidence: `recording ${id}; QEMU is process ${pid}, and goes on logging for it`,
    hint: `mmiobridge resume ${id} goes on with it, or, with q or Ctrl-C, ends it`,
  });
}
