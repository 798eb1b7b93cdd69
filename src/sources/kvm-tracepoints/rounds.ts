/**
 * Puts the records of all CPUs into one order.
 *
 * The rings are read one after the other, in rounds, while vCPU threads go from CPU to CPU: a
 * round may hold what a thread did after its move, and not what it did before. What happened
 * before the round began is in it whole, however; so that much of it is handed out, and the rest
 * waits for the next round.
 */
import { Kind, KvmEvents, type KvmRow } from './events.ts';
import type { PageReader } from './pages.ts';

/** By CPU: the records that wait for the next round. */
export type RoundsSnapshot = readonly (readonly [number, readonly KvmRow[]])[];

export class Rounds {
  readonly #pages: PageReader;
  /** By CPU: what is not yet handed out. */
  readonly #waiting = new Map<number, KvmEvents>();
  /** What the last `end` has handed out. */
  readonly events = new KvmEvents();
  /** Pages that were not what they should be. */
  damagedPages = 0;

  constructor(pages: PageReader, from?: RoundsSnapshot) {
    this.#pages = pages;
    for (const [cpu, rows] of from ?? []) {
      const events = new KvmEvents();
      for (const row of rows) events.put(row);
      this.#waiting.set(cpu, events);
    }
  }

  snapshot(): RoundsSnapshot {
    return [...this.#waiting].map(([cpu, events]) => [
      cpu,
      Array.from({ length: events.length }, (_, row) => events.row(row)),
    ]);
  }

  page(cpu: number, page: Uint8Array): void {
    let events = this.#waiting.get(cpu);
    if (events === undefined) this.#waiting.set(cpu, (events = new KvmEvents()));
    if (this.#pages.read(page, events)) return;
    this.damagedPages++;
    const row = events.add();
    events.timeNs[row] = row === 0 ? 0 : events.timeNs[row - 1]!;
    events.thread[row] = 0;
    events.kind[row] = Kind.lost;
    events.lo[row] = events.hi[row] = 0xffff_ffff;
  }

  /** A round that began at `beganNs` is whole: what it brought, in order, is in `events`. */
  end(beganNs: number): void {
    const out = this.events;
    out.length = 0;
    const lists = [...this.#waiting.values()].filter(({ length }) => length > 0);
    const heads = lists.map(() => 0);
    for (;;) {
      let first = -1;
      let firstNs = Infinity;
      let secondNs = Infinity;
      for (let i = 0; i < lists.length; i++) {
        const list = lists[i]!;
        const head = heads[i]!;
        if (head === list.length) continue;
        const timeNs = list.timeNs[head]!;
        if (timeNs < firstNs) {
          secondNs = firstNs;
          firstNs = timeNs;
          first = i;
        } else if (timeNs < secondNs) secondNs = timeNs;
      }
      if (first < 0 || firstNs > beganNs) break;
      const list = lists[first]!;
      let head = heads[first]!;
      const untilNs = Math.min(secondNs, beganNs);
      do out.copy(list, head++);
      while (head < list.length && list.timeNs[head]! <= untilNs);
      heads[first] = head;
    }
    for (const [i, list] of lists.entries()) list.dropBefore(heads[i]!);
  }
}
