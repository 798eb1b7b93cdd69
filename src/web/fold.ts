import type { mmiobridge } from '../wire/generated/types.ts';
import { bitList, changedBits } from './format.ts';

type Entry = mmiobridge.v1.HistoryEntry.$Properties;

/** Fewer reads than these are no poll loop. */
const LEAST_POLLS = 3;

/** A line of a register's history. */
export interface Step {
  readonly number: number;
  readonly write: boolean;
  readonly firstNs: number;
  readonly lastNs: number;
  readonly count: number;
  readonly value: readonly [number, number];
  /** What was seen of the register before; undefined at the beginning. */
  readonly before: readonly [number, number] | undefined;
  readonly width: number;
  /** Reads of one value over and over; with the read that ended it, if one did. */
  readonly poll: boolean;
  /** What ended it: `bit 3 set`. */
  readonly until: string | undefined;
}

/**
 * Folds the reads of one value and the read of another one behind them, by the same vCPU, into one
 * step: the value is then the one that ended it.
 */
export function foldPolls(entries: readonly Entry[]): Step[] {
  const steps: Step[] = [];
  let before: readonly [number, number] | undefined;
  for (let at = 0; at < entries.length; at++) {
    const entry = entries[at] ?? {};
    const next = entries[at + 1];
    const value = valueOf(entry);
    const reads = entry.count ?? 1;
    const poll = entry.write !== true && reads >= LEAST_POLLS;
    const ends = poll && next !== undefined && next.write !== true && next.cpu === entry.cpu;
    const until = ends ? difference(value, valueOf(next)) : undefined;
    // A read that ends one loop and begins the next is a loop of its own.
    const taken = ends && (next.count ?? 1) === 1;
    steps.push({
      number: entry.number ?? 0,
      write: entry.write === true,
      firstNs: entry.firstNs ?? 0,
      lastNs: (ends ? next.firstNs : entry.lastNs) ?? 0,
      count: reads + (taken ? 1 : 0),
      value: taken ? valueOf(next) : value,
      before,
      width: entry.width ?? 4,
      poll,
      until,
    });
    before = taken ? valueOf(next) : value;
    if (taken) at++;
  }
  return steps;
}

function valueOf(entry: Entry): readonly [number, number] {
  return [entry.valueLow ?? 0, entry.valueHigh ?? 0];
}

/** `bit 3 set`, `bits 0,4–7 changed` */
function difference(from: readonly [number, number], to: readonly [number, number]): string {
  const { set, cleared } = changedBits(from, to);
  const parts = [];
  for (const [bits, word] of [
    [set, 'set'],
    [cleared, 'cleared'],
  ] as const) {
    if (bits.length > 0)
      parts.push(`${bits.length === 1 ? 'bit' : 'bits'} ${bitList(bits)} ${word}`);
  }
  return parts.join(', ');
}
