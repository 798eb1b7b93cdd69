import { Op, type AccessBatch } from '../model/access-batch.ts';
import type { Counters, RecordingEvent } from '../model/events.ts';
import type { Analysis } from './analysis.ts';

/** How much there is of each kind of thing. */
export interface Totals {
  /** All accesses that are no writes. */
  readonly reads: number;
  readonly writes: number;
  /** Accesses known to be missing; those of unknown number are not in it. */
  readonly lost: number;
  /** How often something went missing, known number or not. */
  readonly lossEvents: number;
  readonly damages: number;
  /** Accesses that QEMU could not do. */
  readonly failed: number;
  readonly marks: number;
  readonly notices: number;
  readonly interrupts: number;
  readonly resets: number;
  /** The latest time of all, session time; 0 before the first. */
  readonly lastTimeNs: number;
}

export const NO_TOTALS: Totals = {
  reads: 0,
  writes: 0,
  lost: 0,
  lossEvents: 0,
  damages: 0,
  failed: 0,
  marks: 0,
  notices: 0,
  interrupts: 0,
  resets: 0,
  lastTimeNs: 0,
};

export class TotalsAnalysis implements Analysis<Totals> {
  readonly #totals: { -readonly [Name in keyof Totals]: number };

  /** @param from totals to go on from */
  constructor(from: Totals = NO_TOTALS) {
    this.#totals = { ...from };
  }

  batch({ length, op, timeNs }: AccessBatch): void {
    let writes = 0;
    let last = this.#totals.lastTimeNs;
    for (let row = 0; row < length; row++) {
      if (op[row] === Op.write) writes++;
      if (timeNs[row]! > last) last = timeNs[row]!;
    }
    this.#totals.writes += writes;
    this.#totals.reads += length - writes;
    this.#totals.lastTimeNs = last;
  }

  event(event: RecordingEvent): void {
    const totals = this.#totals;
    if (event.timeNs > totals.lastTimeNs) totals.lastTimeNs = event.timeNs;
    switch (event.kind) {
      case 'loss':
        totals.lossEvents++;
        totals.lost += Math.max(0, event.count);
        return;
      case 'damage':
        totals.damages++;
        return;
      case 'failed':
        totals.failed++;
        return;
      case 'mark':
        totals.marks++;
        return;
      case 'notice':
        totals.notices++;
        return;
      case 'interrupt':
        totals.interrupts++;
        return;
      case 'reset':
        totals.resets++;
        return;
      default:
        return;
    }
  }

  result(): Totals {
    return { ...this.#totals };
  }
}

export function accessesOf({ reads, writes }: Pick<Totals, 'reads' | 'writes'>): number {
  return reads + writes;
}

/** What the end of a recording says was in it. */
export function countersOf(
  { reads, writes, lost, lossEvents, damages }: Totals,
  otherLines: Counters['otherLines'],
): Counters {
  return { reads, writes, lost, lossEvents, damagedLines: damages, otherLines };
}
