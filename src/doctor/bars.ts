import { hex } from '../base/format.ts';
import { barWindows, deviceCoverage } from '../machine/coverage.ts';
import { readFlatView, type FlatRange } from '../machine/flat-view.ts';
import { parseTree } from '../machine/mtree-tree.ts';
import {
  INTERRUPTS,
  NO_MMAP,
  SHORT_CUTS,
  readVfioProperties,
  type VfioProperty,
} from '../machine/vfio-properties.ts';
import type { CoverageRange, CoverageState } from '../model/coverage.ts';
import { isPassedThrough } from '../model/device.ts';
import type { QmpClient } from '../qmp/client.ts';
import { Check, type CheckResult } from './check.ts';
import type { RunningVm, VmDevice } from './running-vm.ts';
import { sizeText } from './system.ts';

/** What of each selected device goes through QEMU, and what goes past it. Throws as `lookAtVm`. */
export async function checkTrapped({ qmp, selected }: RunningVm): Promise<readonly CheckResult[]> {
  const sections = parseTree(await qmp.hmp('info mtree'));
  const ranges = await readFlatView(qmp, sections, barWindows(selected));
  const results = await Promise.all(selected.map((device) => checkDevice(qmp, device, ranges)));
  return results.flat();
}

async function checkDevice(
  qmp: QmpClient,
  device: VmDevice,
  ranges: readonly FlatRange[],
): Promise<readonly CheckResult[]> {
  const bars = deviceCoverage(device, ranges, 'tables');
  if (!isPassedThrough(device)) return checkBars(device, bars, undefined);
  const options = await readVfioProperties(qmp, device.qomPath);
  return [
    ...checkBars(device, bars, options.get(NO_MMAP.name)),
    ...(options.size > 0 ? [checkShortCuts(device, options)] : []),
  ];
}

/** One result for each BAR, and one more for each part of it that is seen in another way. */
function checkBars(
  device: VmDevice,
  ranges: readonly CoverageRange[],
  noMmap: boolean | undefined,
): readonly CheckResult[] {
  const parts = new Map<string, CoverageRange[]>();
  for (const range of ranges) {
    const key = `${range.region} ${range.state}`;
    parts.set(key, [...(parts.get(key) ?? []), range]);
  }
  return [...parts.values()].map((same) => checkPart(device, same, noMmap));
}

/** @param same ranges of one BAR that are in one state; at least one */
function checkPart(
  device: VmDevice,
  same: readonly CoverageRange[],
  noMmap: boolean | undefined,
): CheckResult {
  const [first] = same;
  const check = new Check('bar', `${device.name} ${first?.region ?? ''}`);
  const size = same.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const at = same.map(({ offset }) => `+${hex(offset)}`).join(', ');
  const state: CoverageState = first?.state ?? 'unknown';
  const seen = `${state}: ${sizeText(size)} at ${at}`;
  const why = first?.why ?? '';
  switch (state) {
    case 'trapped':
      return check.ok(seen);
    case 'bypassed':
      return check.failure(`${seen} mapped into the guest (${why})`, ...mappedRemedy(device));
    case 'emulated':
      return check.warning(
        `${seen} answered by QEMU itself, and not recorded (${why})`,
        'none: what QEMU lays over a BAR (quirks of some cards) never reaches the device',
      );
    case 'unknown':
      if (noMmap === true) return check.ok(`${seen}, ${why}; x-no-mmap=on will trap it`);
      return check.warning(
        `${seen} (${why})`,
        'run this again when the guest has loaded its driver',
      );
    default:
      return state satisfies never;
  }
}

function mappedRemedy({ type, hostAddress }: VmDevice): readonly string[] {
  if (type.startsWith('vfio-user')) return ['its server must not offer the region for mmap'];
  if (hostAddress === '') return ['nothing can be done: this memory is plain RAM of the device'];
  return [
    `start QEMU again with: -device vfio-pci,host=${hostAddress},x-no-mmap=on`,
    'libvirt: the same by <qemu:override>, property x-no-mmap',
  ];
}

/** What goes past QEMU by other ways than a mapping. */
function checkShortCuts(device: VmDevice, options: ReadonlyMap<string, boolean>): CheckResult {
  const check = new Check('short-cuts', `${device.name} short cuts`);
  const off = (properties: readonly VfioProperty[]) =>
    properties.map(({ name }) => name).filter((name) => options.get(name) === false);
  const writes = off(SHORT_CUTS);
  const interrupts = off(INTERRUPTS);
  if (writes.length + interrupts.length === 0) return check.ok('none: all go through QEMU');
  const why = [
    ...(writes.length > 0
      ? [`writes to a register may go past QEMU (${writes.join(', ')} off)`]
      : []),
    ...(interrupts.length > 0 ? [`interrupts do (${interrupts.join(', ')} off)`] : []),
  ];
  const words = [...writes, ...interrupts].map((name) => `${name}=on`).join(',');
  return check.warning(why.join('; '), `start QEMU again with: -device vfio-pci,…,${words}`);
}
