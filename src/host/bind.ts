/**
 * Gives PCI devices to vfio-pci, and back to the drivers that they had. The record of what a device
 * was is written before the first step and removed after the last, so that the way back is known
 * wherever we were killed. See Documentation/driver-api/vfio.rst of the kernel, and driver_override
 * in Documentation/ABI/testing/sysfs-bus-pci.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MmioError, messageOf } from '../base/errors.ts';
import {
  bindRecordPath,
  readBindRecord,
  removeBindRecord,
  writeBindRecord,
  type BindRecord,
} from './bind-record.ts';
import { isVfioDriver } from './iommu-groups.ts';
import type { Kernel } from './kernel.ts';
import { pciDevicePath, readPciDevice, type HostPciDevice } from './pci.ts';
import { readText } from './sysfs.ts';

/** One thing that is done to the host. */
export type Step =
  | { readonly do: 'load'; readonly module: string }
  | { readonly do: 'remember'; readonly address: string; readonly record: BindRecord }
  | { readonly do: 'write'; readonly path: string; readonly text: string };

const VFIO_PCI = 'vfio-pci';
const DRIVERS = 'sys/bus/pci/drivers';
const DRIVERS_PROBE = 'sys/bus/pci/drivers_probe';

/** What will bind a device to vfio-pci; nothing if VFIO has it. */
export function bindSteps(root: string, device: HostPciDevice): readonly Step[] {
  const { address, driver, driverOverride } = device;
  if (isVfioDriver(driver)) return [];
  const path = pciDevicePath(root, address);
  // An earlier bind, or unbind, was cut off: it knows what we cannot see any more.
  const before = readBindRecord(root, address);
  const record = {
    driver: driver ?? before?.driver,
    driverOverride: driverOverride === VFIO_PCI ? before?.driverOverride : driverOverride,
  };
  return [
    ...(existsSync(join(root, DRIVERS, VFIO_PCI)) ? [] : [load(VFIO_PCI)]),
    { do: 'remember', address, record },
    write(join(path, 'driver_override'), VFIO_PCI),
    ...(driver === undefined ? [] : [write(join(path, 'driver/unbind'), address)]),
    write(join(root, DRIVERS_PROBE), address),
  ];
}

/**
 * What will take a device from vfio-pci and give it back; nothing if it is neither bound, nor half
 * bound. Without a record the kernel chooses the driver.
 */
export function unbindSteps(root: string, device: HostPciDevice): readonly Step[] {
  const { address, driver, driverOverride } = device;
  const record = readBindRecord(root, address);
  const held = isVfioDriver(driver);
  if (!held && record === undefined && driverOverride !== VFIO_PCI) return [];
  const path = pciDevicePath(root, address);
  const override = record?.driverOverride;
  return [
    ...(driverOverride === override ? [] : [write(join(path, 'driver_override'), override ?? '')]),
    ...(held ? [write(join(path, 'driver/unbind'), address)] : []),
    ...(held || driver === undefined ? giveBack(root, address, record?.driver) : []),
  ];
}

function giveBack(root: string, address: string, driver: string | undefined): readonly Step[] {
  const probe = write(join(root, DRIVERS_PROBE), address);
  if (driver === undefined) return [probe];
  const bind = join(root, DRIVERS, driver, 'bind');
  if (existsSync(bind)) return [write(bind, address)];
  // Its module was unloaded meanwhile. A module and its driver may have different names.
  const modalias = readText(join(pciDevicePath(root, address), 'modalias')) ?? driver;
  return [load(modalias), probe];
}

/**
 * Binds a device to vfio-pci; if that fails, gives it back.
 *
 * @throws MmioError `refused`, which says what the device has now
 */
export async function bindDevice(
  root: string,
  device: HostPciDevice,
  kernel: Kernel,
): Promise<void> {
  const { address } = device;
  try {
    for (const step of bindSteps(root, device)) await take(step, root, kernel);
    if (!isVfioDriver(readPciDevice(root, address)?.driver)) {
      throw new MmioError('refused', `vfio-pci does not take ${address}`, {
        hint: `see what it says: dmesg | grep -e vfio -e ${address}`,
      });
    }
  } catch (error) {
    throw await undone(root, device, kernel, error);
  }
}

/**
 * Takes a device from vfio-pci and gives it to the driver that it had. Returns what it has now.
 *
 * @throws MmioError `refused` if that driver does not take it; the record is then kept
 */
export async function unbindDevice(
  root: string,
  device: HostPciDevice,
  kernel: Kernel,
): Promise<HostPciDevice> {
  const { address } = device;
  const before = readBindRecord(root, address)?.driver;
  for (const step of unbindSteps(root, device)) await take(step, root, kernel);
  const now = readPciDevice(root, address) ?? device;
  if (before !== undefined && now.driver === undefined) {
    throw new MmioError('refused', `${before} does not take ${address} back`, {
      evidence: `it has no driver now; it had ${before}, says ${bindRecordPath(root, address)}`,
      hint: `see what it says: dmesg | grep -e ${before} -e ${address}`,
    });
  }
  await removeBindRecord(root, address);
  return now;
}

/** The same error, which also says what the device has now. */
async function undone(
  root: string,
  device: HostPciDevice,
  kernel: Kernel,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof MmioError)) return error;
  const half = readPciDevice(root, device.address) ?? device;
  const outcome = await unbindDevice(root, half, kernel).then(
    ({ driver }) => `it was undone: its driver is ${driver ?? 'none'}`,
    (failure: unknown) => `undoing it failed, too: ${messageOf(failure)}`,
  );
  return new MmioError(error.code, error.message, {
    evidence: [error.evidence ?? [], outcome].flat().join('\n'),
    hint: error.hint,
    cause: error,
  });
}

async function take(step: Step, root: string, kernel: Kernel): Promise<void> {
  switch (step.do) {
    case 'load':
      return kernel.loadModule(step.module);
    case 'remember':
      return writeBindRecord(root, step.address, step.record);
    case 'write':
      return kernel.write(step.path, `${step.text}\n`);
  }
}

function load(module: string): Step {
  return { do: 'load', module };
}

function write(path: string, text: string): Step {
  return { do: 'write', path, text };
}
