/** Questions to a running QEMU about the devices of a recording. */
import { aliasRegions } from '../machine/alias.ts';
import { coverageOf } from '../machine/coverage.ts';
import { readInventory } from '../machine/inventory.ts';
import { parseFlatView } from '../machine/mtree.ts';
import { MmioError } from '../base/errors.ts';
import type { CoverageRange } from '../model/coverage.ts';
import { ROM_SLOT, guestAddress } from '../model/device.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isPassedThrough, type Devices, type DeviceState } from './devices.ts';

/** vCPU index of each QEMU thread (`query-cpus-fast`). */
export async function readVcpus(qmp: QmpClient): Promise<ReadonlyMap<number, number>> {
  const cpus =
    await qmp.execute<readonly { 'cpu-index': number; 'thread-id': number }[]>('query-cpus-fast');
  return new Map(cpus.map((cpu) => [cpu['thread-id'], cpu['cpu-index']]));
}

export async function learnDevices(qmp: QmpClient, devices: Devices): Promise<void> {
  devices.learn(await readInventory(qmp));
}

/**
 * Takes over aliases, and tells what of the selected devices is trapped.
 *
 * @param seesMsix accesses to the MSI-X table are recorded, too
 */
export async function lookAtMemory(
  qmp: QmpClient,
  devices: Devices,
  seesMsix = false,
): Promise<readonly CoverageRange[]> {
  const emulated = devices.selected.some(({ device }) => !isPassedThrough(device));
  const [flat, tree] = await Promise.all([
    qmp.hmp('info mtree -f'),
    emulated ? qmp.hmp('info mtree') : '',
  ]);
  if (emulated) devices.setAliases(aliasRegions(tree));
  const ranges = parseFlatView(flat);
  return devices.selected.flatMap(({ device }) =>
    device.bars
      .slice(0, ROM_SLOT)
      .flatMap((bar, slot) => coverageOf(device.name, `BAR${slot}`, bar, ranges))
      .map((range) => (isPassedThrough(device) && !seesMsix ? withoutMsix(range) : range)),
  );
}

/** The MSI-X table of a passed-through device is QEMU's: vfio_region_* does not show it. */
function withoutMsix(range: CoverageRange): CoverageRange {
  const isMsix = range.state === 'trapped' && /\bmsix-(table|pba)\b/.test(range.why);
  return isMsix ? { ...range, state: 'emulated' } : range;
}

/** A device on one line, for people. */
export function describeDevice({ device }: DeviceState): string {
  const ids = [device.vendorId, device.deviceId].map((id) => id.toString(16).padStart(4, '0'));
  const where = device.bus < 0 ? 'behind a bridge' : `at ${guestAddress(device)}`;
  const id = device.qemuId === '' ? 'no id' : `id ${device.qemuId}`;
  const host = device.hostAddress === '' ? '' : `, host ${device.hostAddress}`;
  return `${device.type || 'device'} ${ids.join(':')} ${where} (${id}${host})`;
}

/** Throws MmioError `not-found`, with what there is, where the selection fits no device. */
export function requireSelected(devices: Devices, selection: readonly string[]): void {
  const list = devices.states.map((state) => `  ${describeDevice(state)}`).join('\n');
  const evidence = list === '' ? 'the VM has no PCI devices' : `the VM has\n${list}`;
  if (selection.length === 0 && devices.selected.length === 0) {
    throw new MmioError('not-found', 'the VM has no passed-through device', {
      evidence,
      hint: 'name what to record with --device ID, an emulated device too',
    });
  }
  const missing = selection.filter((name) => !devices.answers(name));
  if (missing.length > 0) {
    throw new MmioError('not-found', `the VM has no device ${missing.join(', ')}`, {
      evidence,
      hint: '--device takes a QEMU id, a guest address (00:02.0), a host address or a type',
    });
  }
}
