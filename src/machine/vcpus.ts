import type { QmpClient } from '../qmp/client.ts';

/** vCPU index of each QEMU thread (`query-cpus-fast`). */
export async function readVcpus(qmp: QmpClient): Promise<ReadonlyMap<number, number>> {
  const cpus =
    await qmp.execute<readonly { 'cpu-index': number; 'thread-id': number }[]>('query-cpus-fast');
  return new Map(cpus.map((cpu) => [cpu['thread-id'], cpu['cpu-index']]));
}
