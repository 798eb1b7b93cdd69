/** A VM that runs, and which of its devices are meant. */
import { readInventory, type PciFunction } from '../machine/inventory.ts';
import { processOfThread, type ThreadOwner } from '../machine/proc.ts';
import { answersTo, guestAddress, isPassedThrough, type Device } from '../model/device.ts';
import type { QmpClient } from '../qmp/client.ts';
import { Check, type CheckResult } from './check.ts';

export interface VmDevice extends Device {
  readonly qomPath: string;
}

export interface RunningVm {
  readonly qmp: QmpClient;
  /** undefined where QEMU runs out of our sight (another host or PID namespace). */
  readonly process: ThreadOwner | undefined;
  readonly memoryBytes: number;
  readonly devices: readonly VmDevice[];
  /** Those that were named; all passed-through ones where none was. */
  readonly selected: readonly VmDevice[];
}

/** Throws what `QmpClient.execute` throws. */
export async function lookAtVm(qmp: QmpClient, selection: readonly string[]): Promise<RunningVm> {
  const [cpus, memory, functions] = await Promise.all([
    qmp.execute<readonly { 'thread-id': number }[]>('query-cpus-fast'),
    qmp.execute<{ 'base-memory': number }>('query-memory-size-summary'),
    readInventory(qmp),
  ]);
  const devices = functions.map(deviceOf);
  return {
    qmp,
    process: processOfThread(cpus[0]?.['thread-id'] ?? 0),
    memoryBytes: memory['base-memory'],
    devices,
    selected: devices.filter((device) =>
      selection.length === 0
        ? isPassedThrough(device)
        : selection.some((name) => answersTo(device, name)),
    ),
  };
}

function deviceOf(found: PciFunction, id: number): VmDevice {
  const name = found.qemuId || found.hostAddress || guestAddress(found);
  return { ...found, id, name, driver: '' };
}

/** @param selection what `--device` named */
export function checkSelection(
  { devices, selected }: RunningVm,
  selection: readonly string[],
): readonly CheckResult[] {
  const check = new Check('vm-device', 'devices of the VM');
  const missing = selection.filter((name) => !devices.some((device) => answersTo(device, name)));
  const list = devices.map(describe).join(', ');
  if (missing.length > 0) {
    return [check.failure(`it has no ${missing.join(', ')}; it has ${list}`, 'name one of these')];
  }
  if (selected.length > 0) return [];
  return [
    check.failure(
      `none is passed through; it has ${list}`,
      '-device vfio-pci,host=ADDRESS,x-no-mmap=on in its command line,',
      'or name an emulated one: mmiobridge doctor --qmp SOCKET --device ID',
    ),
  ];
}

function describe({ type, qemuId, bus, devfn }: VmDevice): string {
  const where = guestAddress({ bus: Math.max(bus, 0), devfn });
  return `${type}${qemuId === '' ? '' : ` ${qemuId}`} at ${where}`;
}
