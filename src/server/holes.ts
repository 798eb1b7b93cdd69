/** Where in a recording something is missing, so that pages can go there. */
import type { DamageEvent, LossEvent } from '../model/events.ts';

/** More are counted only. */
const MAX_HOLES = 1000;

export interface Hole {
  readonly kind: 'loss' | 'damage';
  readonly fromNs: number;
  /** Time of what is behind it, as far as that is known. */
  readonly toNs: number;
  /** Number of the first access behind it. */
  readonly row: number;
  /** How many accesses are missing; -1: nobody knows. */
  readonly count: number;
  readonly reason: string;
}

export class Holes {
  readonly #holes: Hole[] = [];
  /** How many of them, from the end on, wait for what is behind them. */
  #open = 0;
  #version = 0;

  get all(): readonly Hole[] {
    return this.#holes;
  }

  /** Grows with every change. */
  get version(): number {
    return this.#version;
  }

  /** @param row how many accesses came before */
  add(event: LossEvent | DamageEvent, row: number): void {
    if (this.#holes.length === MAX_HOLES) return;
    this.#version++;
    const { kind, timeNs: fromNs, reason } = event;
    if (kind === 'damage') {
      this.#holes.push({ kind, fromNs, toNs: fromNs, row, count: -1, reason });
      this.#open++;
      return;
    }
    const { count, durationNs } = event;
    // One whose end is known is behind those that wait for theirs.
    this.passed(fromNs);
    this.#holes.push({ kind, fromNs, toNs: fromNs + durationNs, row, count, reason });
  }

  /** Something came behind them. */
  passed(timeNs: number): void {
    if (this.#open === 0) return;
    this.#version++;
    for (let at = this.#holes.length - this.#open; at < this.#holes.length; at++) {
      const hole = this.#holes[at]!;
      this.#holes[at] = { ...hole, toNs: Math.max(hole.fromNs, timeNs) };
    }
    this.#open = 0;
  }
}
