/** What is known by now of how the BARs of a recording are mapped. */
import type { DeviceState } from '../../attribution/device-state.ts';
import type { CoverageRange } from '../../model/coverage.ts';
import { ROM_SLOT } from '../../model/device.ts';

/** The BARs that the guest has mapped or accessed: through others there is no access. */
function mappedBars(devices: readonly DeviceState[]) {
  return devices.flatMap(({ device, barMappings, usedMappings }) =>
    device.bars.slice(0, ROM_SLOT).flatMap(({ sizeBytes }, slot) => {
      const isMapped = barMappings[slot] !== undefined || usedMappings[slot] !== undefined;
      return isMapped && sizeBytes > 0
        ? [{ device: device.name, region: `BAR${slot}`, sizeBytes }]
        : [];
    }),
  );
}

/** With what is known of BARs of which QEMU could not be asked in time. */
export function settled(
  ranges: readonly CoverageRange[],
  devices: readonly DeviceState[],
  trapped: Readonly<Record<string, string>>,
): readonly CoverageRange[] {
  const unknown = mappedBars(devices).filter(
    ({ device, region }) => !isKnown(ranges, device, region),
  );
  const isUnknown = (range: CoverageRange) =>
    unknown.some(({ device, region }) => range.device === device && range.region === region);
  return [
    ...ranges.filter((range) => !isUnknown(range)),
    ...unknown.map(({ device, region, sizeBytes }): CoverageRange => {
      const why = trapped[device];
      const known = why === undefined ? TOO_LATE : ({ state: 'trapped', why } as const);
      return { device, region, offset: 0, lengthBytes: sizeBytes, ...known };
    }),
  ];
}

const TOO_LATE = {
  state: 'unknown',
  why: 'QEMU could not be asked in time how it is mapped',
} as const;

function isKnown(ranges: readonly CoverageRange[], device: string, region: string): boolean {
  return ranges.some(
    (range) => range.device === device && range.region === region && range.state !== 'unknown',
  );
}

/** Whether QEMU said of each BAR that it is trapped. Parts that nothing answers do not matter. */
export function isTrapped(
  ranges: readonly CoverageRange[],
  devices: readonly DeviceState[],
): boolean {
  return (
    ranges.every(({ state }) => state === 'trapped' || state === 'unknown') &&
    mappedBars(devices).every(({ device, region }) => isKnown(ranges, device, region))
  );
}

/**
 * What was once seen of a BAR stays: one that is unmapped, or moved, was trapped then all the same.
 * Only ranges of which nothing was known give way.
 */
export function mergeCoverage(
  before: readonly CoverageRange[],
  now: readonly CoverageRange[],
): readonly CoverageRange[] {
  const keyOf = (range: CoverageRange) => `${range.device} ${range.region}`;
  const told = new Set(now.filter((range) => range.state !== 'unknown').map(keyOf));
  const known = before.filter((range) => range.state !== 'unknown' && !told.has(keyOf(range)));
  const kept = new Set(known.map(keyOf));
  return [...known, ...now.filter((range) => !kept.has(keyOf(range)))];
}
