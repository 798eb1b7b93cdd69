import type { AccessBatch } from '../../model/access-batch.ts';
import type { Device, Region } from '../../model/device.ts';
import { answersTo } from '../../model/device.ts';
import type { Tables } from '../../model/tables.ts';
import type { Compare, Filter, NumberField, Range, Wide } from './parse.ts';

/** Does row `row` of the batch pass? */
export type Predicate = (batch: AccessBatch, row: number) => boolean;

/** Makes a filter fast. Devices and regions are looked up as the tables know them when asked. */
export function compileFilter(filter: Filter, tables: Tables): Predicate {
  switch (filter.kind) {
    case 'all':
      return () => true;
    case 'and': {
      const left = compileFilter(filter.left, tables);
      const right = compileFilter(filter.right, tables);
      return (batch, row) => left(batch, row) && right(batch, row);
    }
    case 'or': {
      const left = compileFilter(filter.left, tables);
      const right = compileFilter(filter.right, tables);
      return (batch, row) => left(batch, row) || right(batch, row);
    }
    case 'not': {
      const of = compileFilter(filter.of, tables);
      return (batch, row) => !of(batch, row);
    }
    case 'op': {
      const { code } = filter;
      return (batch, row) => batch.op[row] === code;
    }
    case 'space': {
      const { code } = filter;
      return (batch, row) => batch.space[row] === code;
    }
    case 'name':
      return byRegion((region) => isNamed(region, filter.of, filter.names, tables), tables);
    case 'in':
      return filter.ranges
        .map((range) => inRange(filter.field, range, tables))
        .reduce((left, right) => (batch, row) => left(batch, row) || right(batch, row));
    case 'compare':
      return comparison(filter.field, filter.how, filter.with, tables);
    case 'mask':
      return masked(filter.mask, filter.wanted);
  }
}

/** Asks once for each region. */
function byRegion(passes: (region: Region) => boolean, tables: Tables): Predicate {
  const known: (boolean | undefined)[] = [];
  return (batch, row) => {
    const id = batch.region[row]!;
    const before = known[id];
    if (before !== undefined) return before;
    const region = tables.regions[id];
    if (region === undefined) return false;
    return (known[id] = passes(region));
  };
}

function isNamed(
  region: Region,
  of: 'device' | 'region',
  names: readonly string[],
  tables: Tables,
): boolean {
  if (of === 'region') return names.some((name) => regionIsNamed(region, name));
  const device = tables.devices[region.device];
  return device !== undefined && names.some((name) => deviceIsNamed(device, name));
}

/** @param name in lower case */
export function regionIsNamed(region: Region, name: string): boolean {
  return region.name.toLowerCase() === name;
}

/** @param name in lower case */
export function deviceIsNamed(device: Device, name: string): boolean {
  return device.name.toLowerCase() === name || answersTo(device, name);
}

function inRange(field: NumberField, { from, to }: Range, tables: Tables): Predicate {
  if (from.lo === to.lo && from.hi === to.hi) return comparison(field, '=', from, tables);
  const above = comparison(field, '>=', from, tables);
  const below = comparison(field, '<=', to, tables);
  return (batch, row) => above(batch, row) && below(batch, row);
}

const COMPARE: Readonly<Record<Compare, (a: number, b: number) => boolean>> = {
  '=': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
};

function comparison(field: NumberField, how: Compare, wanted: Wide, tables: Tables): Predicate {
  const compare = COMPARE[how];
  const number = wanted.hi * 2 ** 32 + wanted.lo;
  switch (field) {
    case 'offset':
      return (batch, row) => compare(batch.offset[row]!, number);
    case 'width':
      return (batch, row) => compare(batch.width[row]!, number);
    case 'cpu':
      return (batch, row) => compare(batch.cpu[row]!, number);
    case 'time':
      return (batch, row) => compare(batch.timeNs[row]!, number);
    case 'bar':
      return byRegion((region) => region.bar >= 0 && compare(region.bar, number), tables);
    case 'value':
      return (batch, row) => compare(order(batch.valueLo[row]!, batch.valueHi[row]!, wanted), 0);
    case 'pc':
      return (batch, row) => compare(order(batch.pcLo[row]!, batch.pcHi[row]!, wanted), 0);
  }
}

/** Below 0, 0 or above 0 as the number lies to the wanted one: 64 bits do not fit a double. */
function order(lo: number, hi: number, wanted: Wide): number {
  return hi === wanted.hi ? lo - wanted.lo : hi - wanted.hi;
}

/** Without a wanted value any bit of the mask suffices. */
function masked(mask: Wide, wanted: Wide | undefined): Predicate {
  if (wanted === undefined) {
    return (batch, row) =>
      ((batch.valueLo[row]! & mask.lo) | (batch.valueHi[row]! & mask.hi)) !== 0;
  }
  return (batch, row) =>
    (batch.valueLo[row]! & mask.lo) >>> 0 === wanted.lo &&
    (batch.valueHi[row]! & mask.hi) >>> 0 === wanted.hi;
}
