import type { CoverageRange, CoverageState } from '../model/coverage.ts';
import { ROM_SLOT, isPassedThrough, type Bar, type Device } from '../model/device.ts';
import type { AddressWindow, FlatRange } from './flat-view.ts';

const STATES: Readonly<Record<string, CoverageState>> = {
  'i/o': 'trapped',
  ram: 'bypassed',
  ramd: 'bypassed',
  rom: 'bypassed',
  romd: 'bypassed',
};

export type SeenOfQemu = 'none' | 'tables' | 'memory' | 'all';

/**
 * `coverageOf` for each BAR of a device, named `BAR0` and so on; the ROM is left out.
 *
 * @param seen what is seen of QEMU's own parts of passed-through devices: none of them, the MSI-X
 *   table, or all that leaves the guest, I/O ports excepted (`memory`) or not
 */
export function deviceCoverage(
  device: Device,
  ranges: readonly FlatRange[],
  seen: SeenOfQemu,
): readonly CoverageRange[] {
  const stateOf = (range: FlatRange): CoverageState => {
    if (seen === 'memory' && range.space === 'io') return 'emulated';
    const seesAll = seen === 'all' || seen === 'memory';
    return isPassedThrough(device) && !seesAll
      ? passedThroughState(range, seen)
      : plainState(range);
  };
  return device.bars
    .slice(0, ROM_SLOT)
    .flatMap((bar, slot) => coverageOf(device.name, `BAR${slot}`, bar, ranges, stateOf));
}

/** Where the BARs of devices are, those that are mapped. */
export function barWindows(devices: readonly Pick<Device, 'bars'>[]): AddressWindow[] {
  return devices
    .flatMap(({ bars }) => bars.slice(0, ROM_SLOT))
    .filter(({ start, sizeBytes }) => start !== 0 && sizeBytes !== 0)
    .map(({ start, sizeBytes, flags }) => ({
      space: (flags & 1) === 1 ? 'io' : 'memory',
      start,
      end: start + sizeBytes - 1,
    }));
}

/** Whether a MemoryRegion is the MSI-X table, or its pending bits: QEMU's own on every device. */
export function isMsixTable(name: string): boolean {
  return /^msix-(table|pba)$/.test(name);
}

function plainState({ kind }: FlatRange): CoverageState {
  return STATES[kind] ?? 'unknown';
}

/** vfio_region_* shows the BARs; what QEMU has laid over them (MSI-X, quirks) it answers itself. */
function passedThroughState(range: FlatRange, seen: SeenOfQemu): CoverageState {
  const state = plainState(range);
  if (state !== 'trapped' || / BAR \d\b/.test(range.name)) return state;
  return seen === 'tables' && isMsixTable(range.name) ? 'trapped' : 'emulated';
}

/**
 * What of a BAR's accesses leaves QEMU's fast path, by the guest's memory map (`readFlatView`): ranges in
 * the order of their offsets, which together are the whole BAR. A hole, and a BAR without address,
 * is `unknown`.
 */
export function coverageOf(
  device: string,
  label: string,
  bar: Bar,
  ranges: readonly FlatRange[],
  stateOf: (range: FlatRange) => CoverageState = plainState,
): readonly CoverageRange[] {
  const result: CoverageRange[] = [];
  const add = (from: number, to: number, state: CoverageState, why: string): void => {
    if (to <= from) return;
    result.push({ device, region: label, offset: from, lengthBytes: to - from, state, why });
  };
  if (bar.sizeBytes === 0) return [];
  if (bar.start === 0) {
    add(0, bar.sizeBytes, 'unknown', 'not mapped when asked');
    return result;
  }
  const space = (bar.flags & 1) === 1 ? 'io' : 'memory';
  const end = bar.start + bar.sizeBytes;
  const within = ranges
    .filter((range) => range.space === space && range.end >= bar.start && range.start < end)
    .filter((range) => !isBackground(range))
    .toSorted((a, b) => a.start - b.start);
  let next = 0;
  for (const range of within) {
    const from = Math.max(range.start - bar.start, next);
    const to = Math.min(range.end + 1 - bar.start, bar.sizeBytes);
    add(next, from, 'unknown', 'info mtree has nothing here');
    add(from, to, stateOf(range), `info mtree: ${range.line}`);
    next = Math.max(next, to);
  }
  add(next, bar.sizeBytes, 'unknown', 'info mtree has nothing here');
  return result;
}

/** The root of the I/O ports shows wherever no device answers. */
function isBackground({ space, name }: FlatRange): boolean {
  return space === 'io' && (name === 'io' || name === 'system/io');
}
