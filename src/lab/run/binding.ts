/** Gives a run its devices, and takes them back. */
import { MmioError } from '../../base/errors.ts';
import {
  bindRefusal,
  findCandidates,
  requireDevices,
  requireLetGo,
  requireRoot,
} from '../../host/bind-check.ts';
import { bindDevice, bindSteps, unbindDevice } from '../../host/bind.ts';
import { KERNEL } from '../../host/kernel.ts';
import { idsOf, readPciDevice } from '../../host/pci.ts';

const ROOT = '/';

export interface BoundDevice {
  readonly address: string;
  readonly ids: string;
  /** What it had before; undefined: none. */
  readonly driverBefore: string | undefined;
  /** It was bound to vfio-pci already, and stays so. */
  readonly wasBound: boolean;
}

/** Throws MmioError where a device must not be taken from the host; nothing is bound then. */
export async function checkBindable(addresses: readonly string[]): Promise<void> {
  const { objections } = await findCandidates(ROOT, addresses);
  if (objections.length > 0) {
    throw bindRefusal(objections, 'or take it by force before the run: mmiobridge bind --force');
  }
  if (addresses.length > 0) requireRoot('run it with sudo, or bind them before');
}

/**
 * Binds one device; `beforeTaking` is done before that, unless VFIO has it already. Throws MmioError,
 * and then it has what it had.
 */
export async function bindOne(
  address: string,
  beforeTaking: () => Promise<void>,
): Promise<BoundDevice> {
  const [device] = requireDevices(ROOT, [address]);
  if (device === undefined) throw new MmioError('not-found', `there is no PCI device ${address}`);
  const wasBound = bindSteps(ROOT, device).length === 0;
  if (!wasBound) {
    await beforeTaking();
    await bindDevice(ROOT, device, KERNEL);
  }
  return { address, ids: idsOf(device), driverBefore: device.driver, wasBound };
}

/** Gives a device back to the driver that it had; which it has now. Throws MmioError while a VM has it. */
export async function unbindOne(address: string): Promise<string | undefined> {
  const device = readPciDevice(ROOT, address);
  if (device === undefined) return undefined;
  requireLetGo(ROOT, device);
  return (await unbindDevice(ROOT, device, KERNEL)).driver;
}
