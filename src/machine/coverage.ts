import type { CoverageRange, CoverageState } from '../model/coverage.ts';
import { ROM_SLOT, isPassedThrough, type Bar, type Device } from '../model/device.ts';
import type { FlatRange } from './mtree.ts';

const STATES: Readonly<Record<string, CoverageState>> = {
  'i/o': 'trapped',
  ram: 'bypassed',
  ramd: 'bypassed',
  rom: 'bypassed',
  romd: 'bypassed',
};

/** `coverageOf` for each BAR of a device, named `BAR0` and so on; the ROM is left out. */
export function deviceCoverage(
  device: Device,
  ranges: readonly FlatRange[],
): readonly CoverageRange[] {
  const all = device.bars
    .slice(0, ROM_SLOT)
    .flatMap((bar, slot) => coverageOf(device.name, `BAR${slot}`, bar, ranges));
  return isPassedThrough(device) ? all.map(withoutMsix) : all;
}

/** The MSI-X table of a passed-through device is QEMU's: vfio_region_* does not show it. */
function withoutMsix(range: CoverageRange): CoverageRange {
  const isMsix = range.state === 'trapped' && /\bmsix-(table|pba)\b/.test(range.why);
  return isMsix ? { ...range, state: 'emulated' } : range;
}

/**
 * What of a BAR's accesses leaves QEMU's fast path, by `info mtree -f` (`parseFlatView`): ranges in
 * the order of their offsets, which together are the whole BAR. A hole, and a BAR without address,
 * is `unknown`.
 */
export function coverageOf(
  device: string,
  label: string,
  bar: Bar,
  ranges: readonly FlatRange[],
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
    add(next, from, 'unknown', 'info mtree -f has nothing here');
    add(from, to, STATES[range.kind] ?? 'unknown', `info mtree -f: ${range.line}`);
    next = Math.max(next, to);
  }
  add(next, bar.sizeBytes, 'unknown', 'info mtree -f has nothing here');
  return result;
}

/** The root of the I/O ports shows wherever no device answers. */
function isBackground({ space, name }: FlatRange): boolean {
  return space === 'io' && (name === 'io' || name === 'system/io');
}

/**
 * Names of memory-mapped i/o regions that show at more than one place, ports included: an alias
 * must be at work, and the log tells only one of the places. A first look; `aliasRegions` knows
 * more, and also finds those that show once.
 */
export function aliasCandidates(ranges: readonly FlatRange[]): readonly string[] {
  const bases = new Map<string, Set<string>>();
  for (const { space, start, regionOffset, kind, name } of ranges) {
    if (kind !== 'i/o') continue;
    const places = bases.get(name) ?? new Set();
    bases.set(name, places.add(`${space} ${start - regionOffset}`));
  }
  const inMemory = new Set(ranges.filter(({ space }) => space === 'memory').map((r) => r.name));
  return [...bases].filter(([name, at]) => at.size > 1 && inMemory.has(name)).map(([name]) => name);
}
