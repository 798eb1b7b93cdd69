import { RegisterDevice } from '../../src/vfio-user/device.ts';
import { RegisterFile } from '../../src/vfio-user/register-file.ts';
import { Register, type RegisterOptions } from '../../src/vfio-user/register.ts';
import { HAMMER_SLOT } from './guests.ts';

/** QEMU arguments (10.1 and later) that add the device behind a socket where the hammer looks. */
export function vfioUserArgs(socketPath: string): string[] {
  const socket = { type: 'unix', path: socketPath };
  return [
    '-device',
    JSON.stringify({ driver: 'vfio-user-pci', id: 'dut', addr: `${HAMMER_SLOT}`, socket }),
  ];
}

/**
 * A device for the hammer guest: as in QEMU's `edu`, register 4 keeps any 32-bit value and reads
 * back its complement. The rest of BAR0 is memory.
 */
export function complementDevice(
  options: {
    readonly keepAccesses?: boolean;
    /** Of the value that was written last: the device does not answer a read. */
    readonly failsRead?: (value: bigint) => boolean;
  } & Pick<RegisterOptions, 'onWrite'> = {},
): RegisterDevice {
  const { keepAccesses = false, failsRead, ...hook } = options;
  const onRead = (value: bigint) => {
    if (failsRead?.(value) === true) throw new Error('the device does not answer');
    return ~value;
  };
  const register = new Register({ offset: 4, width: 4, onRead, ...hook });
  const registers = new RegisterFile({
    sizeBytes: 4096,
    registers: [register],
    undeclared: 'memory',
  });
  return new RegisterDevice({
    vendorId: 0x1234,
    deviceId: 0xbeef,
    bars: [{ registers }],
    keepAccesses,
  });
}
