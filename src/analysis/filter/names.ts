import type { Tables } from '../../model/tables.ts';
import { deviceIsNamed, regionIsNamed } from './compile.ts';
import type { Filter } from './parse.ts';

/** More do not fit a line. */
const MAX_LISTED = 12;

/**
 * Devices, regions and BARs that a filter names and that are not there, as the tables know them now:
 * what it selects is then nothing, or everything, for that reason. A sentence each, for people.
 */
export function unknownNames(filter: Filter, tables: Tables): string[] {
  const devices = tables.devices.filter(Boolean);
  const regions = tables.regions.filter(Boolean);
  const found = new Set<string>();
  const say = (what: string, known: readonly string[]): void => {
    const names = [...new Set(known)];
    const more = names.length > MAX_LISTED ? ', …' : '';
    const there = names.length === 0 ? 'none' : names.slice(0, MAX_LISTED).join(', ') + more;
    found.add(`there is no ${what}; there ${names.length === 1 ? 'is' : 'are'} ${there}`);
  };
  const visit = (part: Filter): void => {
    if (part.kind === 'and' || part.kind === 'or') {
      visit(part.left);
      visit(part.right);
    } else if (part.kind === 'not') visit(part.of);
    else if (part.kind === 'name' && part.of === 'device') {
      for (const name of part.names) {
        if (devices.some((device) => deviceIsNamed(device, name))) continue;
        say(
          `device “${name}”`,
          devices.map((device) => device.name),
        );
      }
    } else if (part.kind === 'name') {
      for (const name of part.names) {
        if (regions.some((region) => regionIsNamed(region, name))) continue;
        say(
          `region “${name}”`,
          regions.map((region) => region.name),
        );
      }
    } else if (part.kind === 'in' && part.field === 'bar') {
      for (const { from, to } of part.ranges) {
        if (regions.some(({ bar }) => bar >= from.lo && bar <= to.lo)) continue;
        const what = from.lo === to.lo ? `BAR ${from.lo}` : `BAR from ${from.lo} to ${to.lo}`;
        const bars = regions.filter(({ bar }) => bar >= 0);
        say(
          what,
          bars.map(({ name }) => name),
        );
      }
    }
  };
  visit(filter);
  return [...found];
}
