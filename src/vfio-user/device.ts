import { BAR_COUNT, configSpace, type DeviceBar, type DeviceIds } from './config-space.ts';
import type { RegisterFile } from './register-file.ts';
import { valueOf } from './values.ts';

/** Regions of a PCI device as VFIO counts them: BARs 0 to 5, ROM, configuration space, VGA. */
export const REGION_COUNT = 9;
export const CONFIG_REGION = 7;

/** One read or write as it came to the device, in the order in which they came. */
export interface DeviceAccess {
  readonly op: 'R' | 'W';
  /** 0 to 5 for the BARs, or `CONFIG_REGION`. */
  readonly region: number;
  readonly offset: number;
  /** Bytes: 1, 2, 4 or 8 for an instruction of the guest, any number where QEMU itself reads. */
  readonly width: number;
  /** What was read, or written. */
  readonly value: bigint;
}

export interface DeviceOptions extends DeviceIds {
  /** By slot; nothing at the slot after a 64-bit BAR. */
  readonly bars: readonly (DeviceBar | undefined)[];
  /** Keep a list of all accesses, which grows for as long as the device is used. */
  readonly keepAccesses?: boolean;
}

/** A PCI function made of registers: what a guest sees of it, without a way to get there. */
export class RegisterDevice {
  /** Empty unless it was asked for. */
  readonly accesses: DeviceAccess[] = [];
  readonly #regions: (RegisterFile | undefined)[];
  readonly #keepAccesses: boolean;

  /** Throws RangeError for BARs that cannot be. */
  constructor(options: DeviceOptions) {
    const { bars, keepAccesses = false } = options;
    const config = configSpace(options, bars);
    this.#regions = Array.from({ length: BAR_COUNT }, (_, slot) => bars[slot]?.registers);
    this.#regions[CONFIG_REGION] = config;
    this.#keepAccesses = keepAccesses;
  }

  /** 0 for a region that the device does not have. */
  regionBytes(region: number): number {
    return this.#regions[region]?.sizeBytes ?? 0;
  }

  /** Throws what a hook throws, and RangeError for what lies outside of the region. */
  read(region: number, offset: number, lengthBytes: number): Buffer {
    const bytes = this.#reach(region, offset, lengthBytes).read(offset, lengthBytes);
    this.#keep('R', region, offset, bytes);
    return bytes;
  }

  /** As `read`. */
  write(region: number, offset: number, bytes: Uint8Array): void {
    const registers = this.#reach(region, offset, bytes.length);
    this.#keep('W', region, offset, bytes);
    registers.write(offset, bytes);
  }

  reset(): void {
    for (const region of this.#regions) region?.reset();
  }

  #reach(region: number, offset: number, lengthBytes: number): RegisterFile {
    const registers = this.#regions[region];
    if (registers === undefined) throw new RangeError(`the device has no region ${region}`);
    if (lengthBytes < 1 || offset + lengthBytes > registers.sizeBytes) {
      throw new RangeError(`region ${region} has ${registers.sizeBytes} bytes`);
    }
    return registers;
  }

  #keep(op: 'R' | 'W', region: number, offset: number, bytes: Uint8Array): void {
    if (!this.#keepAccesses) return;
    this.accesses.push({ op, region, offset, width: bytes.length, value: valueOf(bytes) });
  }
}
