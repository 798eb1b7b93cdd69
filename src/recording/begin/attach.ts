/** Records a QEMU that runs already. */
import { Devices } from '../../attribution/devices.ts';
import { cmdlineOf, processOfThread, processRef } from '../../machine/proc.ts';
import { readVcpus } from '../../machine/vcpus.ts';
import { Vm } from '../../machine/vm.ts';
import { QmpClient } from '../../qmp/client.ts';
import { SessionFolder } from '../session/session-folder.ts';
import { SOURCES } from '../source/index.ts';
import type { SourceAttach } from '../source/recording-source.ts';
import type { Spool } from '../spool/spool.ts';
import { requireAlone } from './alone.ts';
import { type Started, announce, begin } from './assemble.ts';
import { learnDevices, requireSelected } from './device-queries.ts';
import { headerOf, startNow } from './header.ts';
import type { RecordOptions } from './options.ts';
import { createSpool, requireFolder, removeAll } from './workspace.ts';

/** Attaches to a QEMU that runs, by its QMP socket. Throws MmioError; QEMU is then as it was. */
export async function recordAttach(address: string, options: RecordOptions): Promise<Started> {
  const kind = SOURCES[options.source];
  kind.requireAttachable(address, options);
  for (const path of options.outputs) await requireFolder(path);
  const qmp = await QmpClient.connect(address);
  let folder: SessionFolder | undefined;
  let spool: Spool | undefined;
  let attached: SourceAttach | undefined;
  try {
    const vcpus = await readVcpus(qmp);
    const [thread = 0] = vcpus.keys();
    const owner = processOfThread(thread);
    const argv = owner === undefined ? [] : cmdlineOf(owner.pid);
    const devices = new Devices(options.selection);
    await learnDevices(qmp, devices);
    requireSelected(devices, options.selection);
    const { selected } = devices;
    attached = await kind.attach({ qmp, pid: owner?.pid, argv, vcpus, selected }, options);

    folder = await SessionFolder.create();
    spool = await createSpool(folder, options, attached.qemuWrites ? owner?.uid : undefined);
    const qemu = owner === undefined ? undefined : processRef(owner.pid);
    const vm = new Vm(qmp, { address, process: qemu, onProblem: options.notice });
    const start = startNow();
    const { header, clock } = { header: kind.header, clock: attached.clock };
    const info = await announce(folder, spool, options, {
      qemu,
      launched: false,
      qmpAddress: address,
      header: headerOf(start, qmp.version, { header, clock }, argv),
      sourceInfo: attached.info,
    });
    // Of two that begin at once one sees the other.
    await requireAlone(vm, folder);
    const source = await attached.begin({ vm, spool, start });
    return await begin({ folder, spool, vm, info, options, source, child: undefined });
  } catch (error) {
    await attached?.undo();
    await qmp.close();
    await removeAll(folder, spool);
    throw error;
  }
}
