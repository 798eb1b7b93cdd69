/** Questions to a running QEMU about the devices of a recording. */
import { aliasRegions } from '../../machine/alias.ts';
import { barWindows, deviceCoverage, type SeenOfQemu } from '../../machine/coverage.ts';
import { readFlatView } from '../../machine/flat-view.ts';
import { parseTree } from '../../machine/mtree-tree.ts';
import { hasNoMemory } from '../../machine/ram-blocks.ts';
import { readInventory } from '../../machine/inventory.ts';
import { NO_MMAP, readVfioProperties, VFIO_PROPERTIES } from '../../machine/vfio-properties.ts';
import { MmioError, describeError } from '../../base/errors.ts';
import type { Notice } from '../../base/notice.ts';
import type { Vm } from '../../machine/vm.ts';
import { vendorDevice } from '../../base/format.ts';
import type { CoverageRange } from '../../model/coverage.ts';
import { DEVICE_NAMES, guestAddress, isPassedThrough } from '../../model/device.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { DeviceState } from '../../attribution/device-state.ts';
import type { Devices } from '../../attribution/devices.ts';

export async function learnDevices(qmp: QmpClient, devices: Devices): Promise<void> {
  devices.learn(await readInventory(qmp));
}

/**
 * As `learnDevices`, of a QEMU that may be busy: until it answers nothing is attributed, and the
 * spool keeps what comes. A VM that ends, or whose QMP is lost, has nothing to say; what it logged
 * is still read.
 */
export async function learnPatiently(
  vm: Pick<Vm, 'connected' | 'isAlive' | 'qmp'>,
  devices: Devices,
  notice: Notice,
): Promise<void> {
  for (let told = false; ; told = true) {
    try {
      await learnDevices(await vm.connected(), devices);
      return;
    } catch (error) {
      if (!vm.isAlive || vm.qmp.state !== 'ready') return;
      if (!(error instanceof MmioError)) throw error;
      if (error.code !== 'timeout') {
        notice(`QEMU does not tell its devices: ${describeError(error)}`);
        return;
      }
      if (!told) notice(`QEMU does not answer, and is asked again: ${describeError(error)}`);
    }
  }
}

/**
 * Takes over aliases, and tells what of the selected devices is trapped.
 *
 * @param seen what the source sees of the parts that QEMU answers by itself
 */
export async function lookAtMemory(
  qmp: QmpClient,
  devices: Devices,
  seen: SeenOfQemu,
): Promise<readonly CoverageRange[]> {
  const emulated = devices.selected.some(({ device }) => !isPassedThrough(device));
  const sections = parseTree(await qmp.hmp('info mtree'));
  if (emulated) devices.addresses.setAliases(aliasRegions(sections));
  const windows = barWindows(devices.selected.map(({ device }) => device));
  const ranges = await readFlatView(qmp, sections, windows);
  return devices.selected.flatMap(({ device }) => deviceCoverage(device, ranges, seen));
}

/** What the options of passed-through devices say of what is seen of them. */
export interface OptionFacts {
  /** What they keep from QEMU, and so from the recording. */
  readonly notes: readonly string[];
  /** Why all of a device's BARs are trapped, whatever becomes of them; by its name. */
  readonly trapped: Readonly<Record<string, string>>;
}

export const NOTHING_KNOWN: OptionFacts = { notes: [], trapped: {} };

export async function optionFacts(qmp: QmpClient, devices: Devices): Promise<OptionFacts> {
  const notes: string[] = [];
  const trapped: Record<string, string> = {};
  for (const { device, qomPath } of devices.selected) {
    if (!isPassedThrough(device)) {
      const { devfn } = device;
      if (await hasNoMemory(qmp, { qomPath, devfn })) {
        trapped[device.name] = 'info ramblock: it has no memory of its own';
      }
      continue;
    }
    if (qomPath === '') continue;
    const values = await readVfioProperties(qmp, qomPath);
    if (values.get(NO_MMAP.name) === true) trapped[device.name] = `${NO_MMAP.name}=on`;
    for (const { name, hides } of VFIO_PROPERTIES) {
      if (values.get(name) !== false) continue;
      notes.push(`${device.name} has ${name}=off: ${hides} do not show`);
    }
  }
  return { notes, trapped };
}

/** A device on one line, for people. */
export function describeDevice({ device }: DeviceState): string {
  const ids = vendorDevice(device.vendorId, device.deviceId);
  const where = device.bus < 0 ? 'behind a bridge' : `at ${guestAddress(device)}`;
  const id = device.qemuId === '' ? 'no id' : `id ${device.qemuId}`;
  const host = device.hostAddress === '' ? '' : `, host ${device.hostAddress}`;
  return `${device.type || 'device'} ${ids} ${where} (${id}${host})`;
}

/** One name may be the address of a device on the host, and in the guest that of another. */
function requireOne(devices: Devices, name: string): void {
  const found = Object.entries(DEVICE_NAMES).flatMap(([what, fits]) => {
    const states = devices.states.filter(({ device }) => fits(device, name));
    return states.length === 0 ? [] : [{ what, states }];
  });
  const [first, ...others] = found;
  const other = others.find(({ states }) => states.some((state) => !first?.states.includes(state)));
  if (first === undefined || other === undefined) return;
  const list = [first, other].map(({ what, states }) =>
    states.map((state) => `by ${what} ${describeDevice(state)}`).join('\n'),
  );
  throw new MmioError('usage', `--device ${name} fits more than one device`, {
    evidence: list.join('\n'),
    hint: 'name the one that is meant by another of its names: QEMU id, address in the guest or on the host',
  });
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
  for (const name of selection) requireOne(devices, name);
  const missing = selection.filter((name) => !devices.answers(name));
  if (missing.length > 0) {
    throw new MmioError('not-found', `the VM has no device ${missing.join(', ')}`, {
      evidence,
      hint: '--device takes a QEMU id, a guest address (00:02.0), a host address or a type',
    });
  }
}
