import type { QmpClient } from '../qmp/client.ts';
import { processOfThread, processRef, type ProcessRef } from './proc.ts';

/** vCPU index of each QEMU thread (`query-cpus-fast`). */
export async function readVcpus(qmp: QmpClient): Promise<ReadonlyMap<number, number>> {
  const cpus =
    await qmp.execute<readonly { 'cpu-index': number; 'thread-id': number }[]>('query-cpus-fast');
  return new Map(cpus.map((cpu) => [cpu['thread-id'], cpu['cpu-index']]));
}

/**
 * The process that runs the vCPUs: of a QEMU that a script or sudo has started it is not the one
 * that we know. undefined where it is out of our sight.
 */
export async function qemuProcess(qmp: QmpClient): Promise<ProcessRef | undefined> {
  const [thread = 0] = (await readVcpus(qmp)).keys();
  const owner = processOfThread(thread);
  return owner && processRef(owner.pid);
}
