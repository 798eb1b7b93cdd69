/** What may be called complete. */
import { expect, test } from 'vitest';
import type { DeviceState } from '../../../../src/attribution/device-state.ts';
import type { CoverageRange } from '../../../../src/model/coverage.ts';
import { NO_BAR } from '../../../../src/model/device.ts';
import { isTrapped, mergeCoverage, settled } from '../../../../src/recording/run/known-coverage.ts';
import { NIC } from '../../../support/recorded.ts';

/** BAR0 is mapped, BAR1 never was. */
const BARS = [0x1000, 0x2000].map((sizeBytes) => ({ ...NO_BAR, sizeBytes }));
const DEVICE = {
  device: { ...NIC, name: 'dut', bars: [...BARS, ...NIC.bars.slice(2)] },
  barMappings: [{}],
  usedMappings: [],
} as unknown as DeviceState;

const range = (state: CoverageRange['state'], region = 'BAR0'): CoverageRange => ({
  device: 'dut',
  region,
  offset: 0,
  lengthBytes: 0x1000,
  state,
  why: 'told by QEMU',
});

test('a mapped BAR of which nothing is known is unknown, and then nothing is complete', () => {
  const [only, ...more] = settled([], [DEVICE], {});
  expect(more).toEqual([]);
  expect(only).toMatchObject({ region: 'BAR0', lengthBytes: 0x1000, state: 'unknown' });
  expect(isTrapped([only!], [DEVICE])).toBe(false);
  expect(isTrapped([], [DEVICE])).toBe(false);
});

test('what is certain without asking is trapped', () => {
  const found = settled([], [DEVICE], { dut: 'x-no-mmap=on' });
  expect(found).toMatchObject([{ state: 'trapped', why: 'x-no-mmap=on' }]);
  expect(isTrapped(found, [DEVICE])).toBe(true);
});

test('what QEMU said stays said; a part that nothing answers does not matter', () => {
  const told = [range('trapped'), { ...range('unknown'), offset: 0x800 }];
  expect(settled(told, [DEVICE], {})).toEqual(told);
  expect(isTrapped(told, [DEVICE])).toBe(true);
  // A BAR that the guest never mapped may be whatever it is.
  expect(isTrapped([range('trapped'), range('unknown', 'BAR1')], [DEVICE])).toBe(true);
});

test.each(['bypassed', 'emulated'] as const)('a %s range is never complete', (state) => {
  const told = [range('trapped'), range(state, 'BAR1')];
  expect(isTrapped(told, [DEVICE])).toBe(false);
});

test('what was once seen stays, and only what was not known gives way', () => {
  const bypassed = range('bypassed');
  expect(mergeCoverage([bypassed], [range('unknown')])).toEqual([bypassed]);
  expect(mergeCoverage([range('unknown')], [bypassed])).toEqual([bypassed]);
  expect(mergeCoverage([range('trapped', 'BAR1')], [bypassed])).toEqual([
    range('trapped', 'BAR1'),
    bypassed,
  ]);
});
