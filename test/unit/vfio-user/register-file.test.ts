import { describe, expect, test } from 'vitest';
import { CONFIG_REGION, RegisterDevice } from '../../../src/vfio-user/device.ts';
import type { BarKind } from '../../../src/vfio-user/config-space.ts';
import { RegisterFile, type RegisterFileOptions } from '../../../src/vfio-user/register-file.ts';
import { Register, type RegisterOptions } from '../../../src/vfio-user/register.ts';
import { bytesOf, valueOf } from '../../../src/vfio-user/values.ts';

function fileOf(
  registers: readonly (Register | RegisterOptions)[],
  undeclared: RegisterFileOptions['undeclared'] = 'zeros',
): RegisterFile {
  const made = registers.map((one) => (one instanceof Register ? one : new Register(one)));
  return new RegisterFile({ sizeBytes: 64, registers: made, undeclared });
}

const read = (file: RegisterFile, offset: number, width: number) =>
  valueOf(file.read(offset, width));
const write = (file: RegisterFile, offset: number, width: number, value: bigint) =>
  file.write(offset, bytesOf(value, width));

describe('a register', () => {
  test('has its reset value at first, and again after a reset', () => {
    const file = fileOf([{ offset: 8, width: 4, reset: 0x12345678n }]);
    expect(read(file, 8, 4)).toBe(0x12345678n);
    write(file, 8, 4, 1n);
    expect(read(file, 8, 4)).toBe(1n);
    file.reset();
    expect(read(file, 8, 4)).toBe(0x12345678n);
  });

  test('takes writes in its writable bits only', () => {
    const file = fileOf([{ offset: 0, width: 2, reset: 0xa5a5n, writable: 0x0ff0n }]);
    write(file, 0, 2, 0xffffn);
    expect(read(file, 0, 2)).toBe(0xaff5n);
    write(file, 0, 2, 0n);
    expect(read(file, 0, 2)).toBe(0xa005n);
  });

  test('clears the bits that a 1 is written to, and no other', () => {
    const file = fileOf([
      { offset: 0, width: 4, reset: 0xff00ffn, writable: 0xffn, writeOneToClear: 0xff0000n },
    ]);
    write(file, 0, 4, 0x0f0012n);
    expect(read(file, 0, 4)).toBe(0xf00012n);
    write(file, 0, 4, 0x12n);
    expect(read(file, 0, 4)).toBe(0xf00012n);
  });

  test('is reached in parts, and together with its neighbours', () => {
    const file = fileOf([
      { offset: 0, width: 4, reset: 0x33221100n },
      { offset: 4, width: 2, reset: 0x5544n },
    ]);
    expect(read(file, 1, 2)).toBe(0x2211n);
    expect(read(file, 0, 8)).toBe(0x554433221100n);
    write(file, 3, 2, 0xbbaan);
    expect(read(file, 0, 8)).toBe(0x55bbaa221100n);
  });

  test('8 bytes wide holds all of them', () => {
    const file = fileOf([{ offset: 8, width: 8 }]);
    write(file, 8, 8, 0xfedcba9876543210n);
    expect(read(file, 12, 4)).toBe(0xfedcba98n);
  });

  test('has hooks: what a read gives, and what follows from a write', () => {
    const status = new Register({ offset: 4, width: 4, writable: 0n });
    const written: bigint[] = [];
    const command = new Register({
      offset: 0,
      width: 4,
      onWrite: (bits) => {
        written.push(bits);
        status.value |= bits;
        command.value = 0n;
      },
    });
    const clearing = new Register({
      offset: 8,
      width: 1,
      reset: 7n,
      onRead: (value) => {
        clearing.value = 0n;
        return ~value;
      },
    });
    const file = fileOf([command, status, clearing]);
    write(file, 0, 4, 0x40n);
    write(file, 2, 1, 0x80n);
    expect(written).toEqual([0x40n, 0x800000n]);
    expect(read(file, 0, 8)).toBe(0x0080004000000000n);
    expect(read(file, 8, 1)).toBe(0xf8n);
    expect(read(file, 8, 1)).toBe(0xffn);
  });

  test.each<[string, RegisterOptions[], string]>([
    ['outside', [{ offset: 62, width: 4 }], 'the register at 0x3e is outside'],
    ['before', [{ offset: -1, width: 4 }], 'is outside'],
    [
      'over another',
      [
        { offset: 4, width: 4 },
        { offset: 6, width: 1 },
      ],
      'the register at 0x6 lies over the one at 0x4',
    ],
  ])('cannot lie %s', (_what, registers, message) => {
    expect(() => fileOf(registers)).toThrow(message);
  });
});

describe('where no register is', () => {
  test.each([
    ['zeros', 0n, 0n],
    ['ones', 0xffffffn, 0xffffffn],
    ['memory', 0n, 0x030201n],
  ] as const)('%s', (undeclared, before, after) => {
    const file = fileOf([{ offset: 3, width: 1, reset: 0x77n }], undeclared);
    expect(read(file, 0, 3)).toBe(before);
    write(file, 0, 3, 0x030201n);
    expect(read(file, 0, 3)).toBe(after);
    expect(read(file, 0, 4)).toBe(after | 0x77000000n);
    file.reset();
    expect(read(file, 0, 3)).toBe(before);
  });
});

describe('a device', () => {
  const bar = (sizeBytes: number, kind: BarKind = 'memory32', prefetchable = false) => ({
    registers: new RegisterFile({ sizeBytes }),
    kind,
    prefetchable,
  });
  const config = (device: RegisterDevice, offset: number, width: number) =>
    valueOf(device.read(CONFIG_REGION, offset, width));
  const ids = { vendorId: 0x1234, deviceId: 0xbeef };

  test('says what it is in its configuration space', () => {
    const device = new RegisterDevice({
      ...ids,
      classCode: 0x020000,
      revision: 3,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      bars: [],
    });
    expect(config(device, 0, 4)).toBe(0xbeef1234n);
    expect(config(device, 8, 4)).toBe(0x02000003n);
    expect(config(device, 0x2c, 4)).toBe(0x11001af4n);
    // A plain header, no capabilities, no interrupt pin.
    expect(config(device, 0xe, 1)).toBe(0n);
    expect(config(device, 6, 2)).toBe(0n);
    expect(config(device, 0x3d, 1)).toBe(0n);
    device.write(CONFIG_REGION, 0, bytesOf(0n, 4));
    expect(config(device, 0, 4)).toBe(0xbeef1234n);
  });

  test('its BARs tell their sizes and kinds to who writes ones', () => {
    const device = new RegisterDevice({
      ...ids,
      bars: [bar(0x1000), bar(0x20, 'io'), bar(2 ** 33, 'memory64', true), undefined, bar(16)],
    });
    device.write(CONFIG_REGION, 0x10, Buffer.alloc(24, 0xff));
    expect(config(device, 0x10, 4)).toBe(0xfffff000n);
    expect(config(device, 0x14, 4)).toBe(0xffffffe1n);
    expect(config(device, 0x18, 8)).toBe(0xfffffffe0000000cn);
    expect(config(device, 0x20, 4)).toBe(0xfffffff0n);
    expect(config(device, 0x24, 4)).toBe(0n);
    expect([0, 1, 2, 3, 4, 5, 6].map((region) => device.regionBytes(region))).toEqual([
      0x1000,
      0x20,
      2 ** 33,
      0,
      16,
      0,
      0,
    ]);
  });

  test.each<[string, ConstructorParameters<typeof RegisterDevice>[0]['bars'], string]>([
    ['is no power of two', [bar(48)], 'BAR 0 cannot have 48 bytes'],
    ['is too small', [undefined, bar(8)], 'BAR 1 cannot have 8 bytes'],
    ['is too large for 32 bits', [bar(2 ** 32)], 'BAR 0 cannot have 4294967296 bytes'],
    ['lies in the upper half of another', [bar(16, 'memory64'), bar(16)], 'BAR 0 does not fit'],
    ['is one too many', Array.from({ length: 7 }, () => bar(16)), 'BAR 6 does not fit'],
  ])('cannot have a BAR that %s', (_what, bars, message) => {
    expect(() => new RegisterDevice({ ...ids, bars })).toThrow(message);
  });

  test('keeps a list of what came, in order, if it is asked to', () => {
    const bars = [bar(16)];
    const device = new RegisterDevice({ ...ids, bars, keepAccesses: true });
    device.write(0, 4, bytesOf(0x1122n, 2));
    device.read(CONFIG_REGION, 0, 8);
    expect(device.accesses).toEqual([
      { op: 'W', region: 0, offset: 4, width: 2, value: 0x1122n },
      { op: 'R', region: CONFIG_REGION, offset: 0, width: 8, value: 0xbeef1234n },
    ]);
    const quiet = new RegisterDevice({ ...ids, bars });
    quiet.read(0, 0, 4);
    expect(quiet.accesses).toEqual([]);
  });

  test('has nothing outside of its regions', () => {
    const device = new RegisterDevice({ ...ids, bars: [bar(16)] });
    expect(() => device.read(0, 13, 4)).toThrow('region 0 has 16 bytes');
    expect(() => device.read(0, 0, 0)).toThrow('region 0 has 16 bytes');
    expect(() => device.write(1, 0, Buffer.alloc(1))).toThrow('no region 1');
  });
});
