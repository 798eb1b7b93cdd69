import { describe, expect, test } from 'vitest';
import { AddressSpace } from '../../../src/attribution/address-space.ts';
import { restoreDevice, takeDevice } from '../../../src/attribution/device-state.ts';
import { Devices } from '../../../src/attribution/devices.ts';
import { isSelected } from '../../../src/attribution/selection.ts';
import { bar, GPU, NIC } from '../../support/recorded.ts';

const added = (gpa: number, at: { bar?: number; sizeBytes?: number } = {}) => ({
  kind: 'mapping' as const,
  timeNs: 0,
  added: true,
  type: 'e1000e',
  bus: 0,
  devfn: 0x10,
  bar: 0,
  gpa,
  sizeBytes: 0x1000,
  ...at,
});

describe('an address space', () => {
  const mapping = (gpa: number) => ({
    region: bar(0, 0, 0),
    gpa,
    lengthBytes: 0x1000,
    io: false,
    mapId: 0,
  });
  test('finds the mapping of an address, the latest where two overlap', () => {
    const of = new AddressSpace();
    const [old, young] = [mapping(0x1000), mapping(0x1800)];
    of.add(old);
    of.add(young);
    expect([0xfff, 0x1000, 0x17ff, 0x1800, 0x27ff, 0x2800].map((at) => of.mappingAt(at))).toEqual([
      undefined,
      old,
      old,
      young,
      young,
      undefined,
    ]);
    of.remove(young);
    expect(of.mappingAt(0x1800)).toBe(old);
  });
  test('says once that something has moved', () => {
    const of = new AddressSpace();
    expect(of.consumeMoved()).toBe(false);
    of.add(mapping(0));
    expect([of.consumeMoved(), of.consumeMoved()]).toEqual([true, false]);
  });
});

test('a selection without names is of passed-through devices', () => {
  expect([NIC, GPU].map((device) => isSelected([], device))).toEqual([false, true]);
  expect([NIC, GPU].map((device) => isSelected(['nic0', '01:00.0'], device))).toEqual([true, true]);
  expect(isSelected(['nic1'], NIC)).toBe(false);
});

describe('devices', () => {
  const found = { ...NIC, qomPath: '/machine/peripheral/nic0' };

  test('survive as JSON: a mapping that is used is still the one that is current', () => {
    const before = new Devices(['nic0']);
    before.learn([found]);
    before.map(added(0xfe000000, { bar: 2 }));
    const [state] = before.states;
    const current = state?.barMappings[2];
    if (state === undefined || current === undefined) throw new Error('no mapping');
    current.mapId = 7;
    state.usedMappings[2] = current;
    const after = restoreDevice(JSON.parse(JSON.stringify(takeDevice(state))) as never);
    expect(after).toEqual({
      ...state,
      barMappings: [undefined, undefined, current],
      usedMappings: [undefined, undefined, current],
      regions: [undefined, undefined, current.region],
    });
    expect(after.usedMappings[2]).toBe(after.barMappings[2]);
  });

  test('of a recording that is resumed learn where other BARs are', () => {
    const before = new Devices(['nic0']);
    before.learn([found]);
    before.map(added(0xfe000000, { bar: 2 }));
    const after = new Devices(['nic0'], JSON.parse(JSON.stringify(before.snapshot())) as never);
    const bars = NIC.bars.map((one, slot) =>
      slot === 0 ? { start: 0xfd000000, flags: 0, sizeBytes: 0x2000 } : one,
    );
    after.learn([{ ...found, bars }]);
    expect(after.addresses.mappingAt(0xfd001fff)?.region.name).toBe('BAR0');
    expect(after.addresses.mappingAt(0xfe000fff)?.region.name).toBe('BAR2');
  });
});
