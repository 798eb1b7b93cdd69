/** Which of the known devices it is that somebody tells of: each source has names of its own. */
import type { PciFunction } from '../machine/inventory.ts';
import type { DeviceState } from './device-state.ts';

/** The one that QMP found: by its place in QEMU's object tree, its id, the host's or guest's address. */
export function findDevice(
  states: readonly DeviceState[],
  found: PciFunction,
): DeviceState | undefined {
  const { qomPath, qemuId, hostAddress } = found;
  return (
    states.find((state) => qomPath !== '' && state.qomPath === qomPath) ??
    states.find(({ device }) => qemuId !== '' && device.qemuId === qemuId) ??
    states.find(({ device }) => hostAddress !== '' && device.hostAddress === hostAddress) ??
    deviceAt(states, found)
  );
}

/** The function at a guest address, if it is of that QEMU type. */
export function deviceAt(
  states: readonly DeviceState[],
  at: { readonly bus: number; readonly devfn: number; readonly type: string },
): DeviceState | undefined {
  return states.find(
    ({ device }) =>
      device.bus === at.bus &&
      device.devfn === at.devfn &&
      (device.type === at.type || device.type === ''),
  );
}

/** The only passed-through device of which the log has told where it is, and not yet its name. */
export function namelessVfio(states: readonly DeviceState[]): DeviceState | undefined {
  return only(
    states.filter(({ device }) => device.type.startsWith('vfio-') && device.hostAddress === ''),
  );
}

/** The only passed-through device known by its host address alone, whose BAR has just this size. */
export function placelessVfio(
  states: readonly DeviceState[],
  slot: number,
  sizeBytes: number,
): DeviceState | undefined {
  return only(
    states.filter(
      ({ device }) =>
        device.type === '' &&
        device.hostAddress !== '' &&
        (device.bars.every((bar) => bar.sizeBytes === 0) ||
          device.bars[slot]?.sizeBytes === sizeBytes),
    ),
  );
}

function only(states: readonly DeviceState[]): DeviceState | undefined {
  return states.length === 1 ? states[0] : undefined;
}
