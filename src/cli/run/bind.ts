/** What bind and unbind have in common: checks, steps, and what is said of them. */
import { dirname } from 'node:path';
import {
  bindRefusal,
  findCandidates,
  requireDevices,
  requireLetGo,
  requireRoot,
} from '../../host/bind-check.ts';
import { bindRecordLines, bindRecordPath } from '../../host/bind-record.ts';
import { bindDevice, bindSteps, unbindDevice, unbindSteps, type Step } from '../../host/bind.ts';
import { KERNEL } from '../../host/kernel.ts';
import { idsOf, readPciDevice, type HostPciDevice } from '../../host/pci.ts';
import { answer, say } from '../print.ts';

const ROOT = '/';

export interface BindOptions {
  readonly force?: true | undefined;
  readonly dryRun?: true | undefined;
}

/** @throws MmioError before anything is done, if it must not be; or what bindDevice throws */
export async function runBind(addresses: readonly string[], options: BindOptions): Promise<void> {
  const { devices, objections } = await findCandidates(ROOT, addresses);
  if (objections.length > 0 && options.force !== true) {
    throw bindRefusal(objections, 'or take it with --force');
  }
  if (options.dryRun === true) return answerSteps(devices, bindSteps, 'is bound already');
  requireRoot(`sudo mmiobridge bind ${addresses.join(' ')}`);
  for (const device of devices) {
    const { address, driver } = device;
    const bound = bindSteps(ROOT, device).length === 0;
    say(titleOf(device));
    if (bound) {
      say(`  is bound to ${driver ?? 'vfio-pci'} already`);
    } else {
      for (const { text } of objections.filter((each) => each.address === address)) {
        say(`  taken by force: ${text}`);
      }
      await bindDevice(ROOT, device, KERNEL);
      say(`  given to vfio-pci; before: ${driver ?? 'no driver'}, as after mmiobridge unbind`);
    }
    const group = readPciDevice(ROOT, address)?.iommuGroup;
    if (group !== undefined) say(`  IOMMU group ${group}: QEMU opens /dev/vfio/${group}`);
  }
}

/** @throws MmioError if a VM has one of them, or what unbindDevice throws */
export async function runUnbind(
  addresses: readonly string[],
  options: Pick<BindOptions, 'dryRun'>,
): Promise<void> {
  const devices = requireDevices(ROOT, addresses);
  for (const device of devices) requireLetGo(ROOT, device);
  if (options.dryRun === true) return answerSteps(devices, unbindSteps, 'is not bound to vfio-pci');
  requireRoot(`sudo mmiobridge unbind ${addresses.join(' ')}`);
  for (const device of devices) {
    const bound = unbindSteps(ROOT, device).length > 0;
    const { driver } = await unbindDevice(ROOT, device, KERNEL);
    say(titleOf(device));
    if (bound) say(`  given back; its driver: ${driver ?? 'none'}`);
    else say(`  is not bound to vfio-pci; its driver: ${driver ?? 'none'}`);
  }
}

/** What would be done, as a script for a shell. */
function answerSteps(
  devices: readonly HostPciDevice[],
  stepsOf: (root: string, device: HostPciDevice) => readonly Step[],
  nothing: string,
): void {
  for (const device of devices) {
    const lines = stepsOf(ROOT, device).map(shellLine);
    const title = `# ${titleOf(device)}${lines.length === 0 ? ` ${nothing}` : ''}`;
    answer([title, ...lines].join('\n'));
  }
}

function shellLine(step: Step): string {
  switch (step.do) {
    case 'load':
      return `modprobe '${step.module}'`;
    case 'remember': {
      const path = bindRecordPath(ROOT, step.address);
      const values = bindRecordLines(step.record).map((line) => `'${line}'`);
      return `mkdir -p ${dirname(path)}; printf '%s\\n' ${values.join(' ')} > ${path}`;
    }
    case 'write':
      return `echo '${step.text}' > ${step.path}`;
  }
}

/** `0000:01:00.0 8086:10d3 Intel Corporation 82574L Gigabit Network Connection` */
function titleOf(device: HostPciDevice): string {
  const { address, vendorName, deviceName } = device;
  return [address, idsOf(device), vendorName, deviceName].filter(Boolean).join(' ');
}
