/** Poll loops in the history of a register: the same value read over and over, and what ended it. */
import { changedBits } from './bits.ts';
import type { HistoryEntry } from './register-history.ts';

/** Fewer reads than these are no poll loop. */
const LEAST_POLLS = 3;

/** A line of a register's history. */
export interface Step {
  readonly rowNumber: number;
  readonly write: boolean;
  readonly firstNs: number;
  readonly lastNs: number;
  readonly count: number;
  readonly value: readonly [number, number];
  /** What was seen of the register before; undefined at the beginning, and if it was of another width. */
  readonly before: readonly [number, number] | undefined;
  readonly width: number;
  /** Reads of one value over and over; with the read that ended it, if one did. */
  readonly poll: boolean;
  /** The bits by which the read that ended the loop differs, lowest first. */
  readonly endedBy:
    { readonly set: readonly number[]; readonly cleared: readonly number[] } | undefined;
}

/**
 * Folds the reads of one value and the read of another one behind them, by the same vCPU, into one
 * step: the value is then the one that ended it.
 */
export function foldPolls(entries: readonly HistoryEntry[]): Step[] {
  const steps: Step[] = [];
  let before: Pick<HistoryEntry, 'value' | 'width'> | undefined;
  for (let at = 0; at < entries.length; at++) {
    const entry = entries[at];
    if (entry === undefined) break;
    const next = entries[at + 1];
    const poll = !entry.write && entry.count >= LEAST_POLLS;
    const ends = poll && next !== undefined && isSameReader(entry, next);
    // A read that ends one loop and begins the next is a loop of its own.
    const taken = ends && next.count === 1;
    const value = taken ? next.value : entry.value;
    steps.push({
      rowNumber: entry.rowNumber,
      write: entry.write,
      firstNs: entry.firstNs,
      lastNs: ends ? next.firstNs : entry.lastNs,
      count: entry.count + (taken ? 1 : 0),
      value,
      before: before?.width === entry.width ? before.value : undefined,
      width: entry.width,
      poll,
      endedBy: ends ? changedBits(entry.value, next.value) : undefined,
    });
    before = { value, width: entry.width };
    if (taken) at++;
  }
  return steps;
}

/** Values of different widths cannot be compared. */
function isSameReader(entry: HistoryEntry, next: HistoryEntry): boolean {
  return !next.write && next.cpu === entry.cpu && next.width === entry.width;
}
