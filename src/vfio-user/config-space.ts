import { RegisterFile } from './register-file.ts';
import { Register, type RegisterWidth } from './register.ts';

/** How many base address registers a PCI function has. */
export const BAR_COUNT = 6;

/** `memory64` takes the next slot, too. */
export type BarKind = 'memory32' | 'memory64' | 'io';

/** A base address register and what is behind it. */
export interface DeviceBar {
  /** Its size is a power of two: 16 bytes and up, 4 and up for I/O ports. */
  readonly registers: RegisterFile;
  /** `memory32` if left out. */
  readonly kind?: BarKind;
  readonly prefetchable?: boolean;
}

/** What a PCI function says of itself. */
export interface DeviceIds {
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: class, subclass, programming interface. */
  readonly classCode?: number;
  readonly revision?: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
}

const CONFIG_BYTES = 256;
const IO_BAR = 1n;
const MEMORY64_BAR = 4n;
const PREFETCHABLE_BAR = 8n;
/** I/O and memory decoding, bus mastering, parity, SERR, interrupt disable. */
const COMMAND_WRITABLE = 0x547n;
const STATUS_CLEARED_BY_ONE = 0xf900n;

/**
 * The configuration space of a conventional PCI function without capabilities and interrupts (type
 * 0 header of the PCI Local Bus Specification 3.0, 6.1). Throws RangeError for a BAR that cannot be.
 */
export function configSpace(
  ids: DeviceIds,
  bars: readonly (DeviceBar | undefined)[],
): RegisterFile {
  const fixed = (offset: number, width: RegisterWidth, value = 0): Register =>
    new Register({ offset, width, reset: BigInt(value), writable: 0n });
  return new RegisterFile({
    sizeBytes: CONFIG_BYTES,
    registers: [
      fixed(0x00, 2, ids.vendorId),
      fixed(0x02, 2, ids.deviceId),
      new Register({ offset: 0x04, width: 2, writable: COMMAND_WRITABLE }),
      new Register({
        offset: 0x06,
        width: 2,
        writable: 0n,
        writeOneToClear: STATUS_CLEARED_BY_ONE,
      }),
      fixed(0x08, 4, ((ids.classCode ?? 0xff0000) * 0x100 + (ids.revision ?? 0)) >>> 0),
      new Register({ offset: 0x0c, width: 1 }),
      ...barRegisters(bars),
      fixed(0x2c, 2, ids.subsystemVendorId),
      fixed(0x2e, 2, ids.subsystemId),
      new Register({ offset: 0x3c, width: 1 }),
    ],
  });
}

function barRegisters(bars: readonly (DeviceBar | undefined)[]): Register[] {
  return bars.flatMap((bar, slot) => {
    if (bar === undefined) return [];
    const { kind = 'memory32', prefetchable = false, registers } = bar;
    const size = registers.sizeBytes;
    const least = kind === 'io' ? 4 : 16;
    const most = kind === 'memory64' ? Number.MAX_SAFE_INTEGER : 2 ** 31;
    if (!Number.isInteger(Math.log2(size)) || size < least || size > most) {
      throw new RangeError(
        `BAR ${slot} cannot have ${size} bytes: a power of two from ${least} up`,
      );
    }
    const wide = kind === 'memory64';
    if (slot + (wide ? 1 : 0) >= BAR_COUNT || (wide && bars[slot + 1] !== undefined)) {
      throw new RangeError(
        `BAR ${slot} does not fit: a function has ${BAR_COUNT}, a 64-bit BAR takes two`,
      );
    }
    const flags =
      (kind === 'io' ? IO_BAR : 0n) |
      (wide ? MEMORY64_BAR : 0n) |
      (prefetchable ? PREFETCHABLE_BAR : 0n);
    return [
      new Register({
        offset: 0x10 + 4 * slot,
        width: wide ? 8 : 4,
        reset: flags,
        writable: -BigInt(size),
      }),
    ];
  });
}
