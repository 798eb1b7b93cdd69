/** Goes on with a recording that was interrupted. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError } from '../../base/errors.ts';
import type { Notice } from '../../base/notice.ts';
import { isAlive, ourselves } from '../../machine/proc.ts';
import { qemuProcess } from '../../machine/vcpus.ts';
import { Vm } from '../../machine/vm.ts';
import { QmpClient } from '../../qmp/client.ts';
import type { SessionInfo } from '../session/info.ts';
import { SessionFolder } from '../session/session-folder.ts';
import { SOURCES, type SourceName } from '../source/index.ts';
import type { SourceKind } from '../source/recording-source.ts';
import { Spool } from '../spool/spool.ts';
import { type Started, assemble } from './assemble.ts';
import { giveUp } from './give-up.ts';
import type { ResumeOptions } from './options.ts';

/** What is written down before something of the spool can be released. */
const LEAST_ROOM_BYTES = 2 ** 19;
const ENDING_POLL_MS = 50;
/** One that lives on for longer than this is not ending: it cannot be reached. */
const ENDING_LIMIT_MS = 3000;

/**
 * Goes on with a recording whose recorder was killed. Throws MmioError `refused` if it still runs, or
 * another version began it; `not-found` if there is none.
 */
export async function resumeRecording(id: string, options: ResumeOptions): Promise<Started> {
  const folder = new SessionFolder(id);
  const before = await folder.readInfo();
  if (isAlive(before.recorder.pid, before.recorder.startTime)) {
    throw new MmioError('refused', `${id} is being recorded`, {
      evidence: `process ${before.recorder.pid} runs`,
      hint: '`mmiobridge status` shows it',
    });
  }
  const kind = SOURCES[requireSource(before)];
  if (!(await folder.hasBegun())) throw await giveUp(folder, before, kind, options.notice);
  if (before.outputs.includes('-')) {
    throw new MmioError('refused', 'a recording to standard output cannot be resumed', {
      evidence: `outputs: ${before.outputs.join(', ')}`,
      hint: `what is left of it lies in ${before.spoolDir}: convert it`,
    });
  }
  const info: SessionInfo = { ...before, recorder: ourselves() };
  for (;;) {
    const vm = await reconnect(info, options.notice);
    try {
      return await goOn(folder, info, vm, kind, options);
    } catch (error) {
      // QEMU talks to one at a time, and the connection would keep this process.
      await vm?.qmp.close();
      const isLost = error instanceof MmioError && error.code === 'closed';
      if (vm === undefined || !isLost || !(await isEnding(info))) throw error;
    }
  }
}

async function goOn(
  folder: SessionFolder,
  info: SessionInfo,
  vm: Vm | undefined,
  kind: SourceKind,
  options: ResumeOptions,
): Promise<Started> {
  const checkpoint = await folder.readCheckpoint();
  const spool = await Spool.reopen(info.spoolDir, checkpoint.position);
  await makeRoom(folder, spool, vm);
  await folder.removeControlSocket();
  return assemble({
    folder,
    spool,
    vm,
    info,
    options,
    child: undefined,
    checkpoint,
    open: (parts) => kind.resume(parts, info.sourceInfo, checkpoint.source),
  });
}

/**
 * QEMU has filled the file system of the spool while nobody read it. Its guest stands still before
 * it is given room that we need to go on; the recorder's guard lets it go again.
 */
async function makeRoom(folder: SessionFolder, spool: Spool, vm: Vm | undefined): Promise<void> {
  if ((await spool.freeBytes()) >= LEAST_ROOM_BYTES) return;
  await folder.setFull();
  if (vm !== undefined && (await vm.isRunning())) {
    await folder.setPaused();
    await vm.pause();
  }
  await folder.dropBallast();
}

function requireSource({ id, source }: SessionInfo): SourceName {
  if (Object.hasOwn(SOURCES, source)) return source as SourceName;
  throw new MmioError('refused', `recording ${id} has a source that is not known`, {
    evidence: `${source}; known are ${Object.keys(SOURCES).join(', ')}`,
    hint: 'resume it with the mmiobridge that began it',
  });
}

async function reconnect(info: SessionInfo, notice: Notice): Promise<Vm | undefined> {
  const { qemu, qmpAddress: address } = info;
  if (!isGone(info)) {
    try {
      const qmp = await QmpClient.connect(address);
      const found = await qemuProcess(qmp);
      const process = found?.pid === qemu?.pid ? qemu : undefined;
      return new Vm(qmp, { address, process, onProblem: notice });
    } catch (error) {
      if (!(await isEnding(info))) throw error;
    }
  }
  notice('QEMU has ended: writing what it left in the spool');
  return undefined;
}

function isGone({ qemu }: SessionInfo): boolean {
  return qemu !== undefined && !isAlive(qemu.pid, qemu.startTime);
}

/** A QEMU that ends closes its monitor first: whether it is gone soon after. */
async function isEnding(info: SessionInfo): Promise<boolean> {
  if (info.qemu === undefined) return false;
  for (let waitedMs = 0; waitedMs < ENDING_LIMIT_MS; waitedMs += ENDING_POLL_MS) {
    if (isGone(info)) return true;
    await sleep(ENDING_POLL_MS);
  }
  return false;
}
