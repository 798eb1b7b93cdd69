/** Holds what a recording says of itself at its end against what came before. */
import { count } from '../base/format.ts';
import type { Counters, EndEvent, LossEvent } from '../model/events.ts';
import { accessesOf, countersOf, type Totals } from './totals.ts';

export interface CheckedEnd {
  /** With the counters of what there is; complete only where it says so and is right. */
  readonly end: EndEvent;
  /** Why it is not complete, or not what it says; empty where it is. */
  readonly doubts: readonly string[];
  /** Accesses that it tells of and does not have: goes before the end. */
  readonly loss: LossEvent | undefined;
}

/** @param found what came before the end */
export function checkEnd(told: EndEvent, found: Totals): CheckedEnd {
  const { timeNs, counters } = told;
  const doubts = differences(counters, found);
  if (!told.complete) doubts.push(SAYS_INCOMPLETE);
  const missing = accessesOf(counters) - accessesOf(found);
  const loss: LossEvent | undefined =
    missing > 0
      ? { kind: 'loss', timeNs, count: missing, durationNs: 0, reason: MISSING }
      : undefined;
  const all = countersOf(found, counters.otherLines);
  const withLoss = loss && { lost: all.lost + missing, lossEvents: all.lossEvents + 1 };
  const end = { ...told, complete: doubts.length === 0, counters: { ...all, ...withLoss } };
  return { end, doubts, loss };
}

/** Among the doubts, the one that is no contradiction. */
export const SAYS_INCOMPLETE = 'it says of itself that it is incomplete';
const MISSING = 'accesses that the recording tells of, and does not have';

function differences(told: Counters, found: Totals): string[] {
  const pairs = [
    ['reads', told.reads, found.reads],
    ['writes', told.writes, found.writes],
    ['accesses that are missing', told.lost, found.lost],
    ['places of loss', told.lossEvents, found.lossEvents],
    ['damaged places', told.damagedLines, found.damages],
  ] as const;
  return pairs
    .filter(([, said, seen]) => said !== seen)
    .map(([what, said, seen]) => `it tells of ${count(said)} ${what}, and has ${count(seen)}`);
}
