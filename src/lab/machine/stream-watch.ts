/**
 * Watches a recording go by: where the marks are, and the accesses that steps wait for. What is
 * counted after a mark is exact: both stand in one stream.
 */
import { compileFilter, type Predicate } from '../../analysis/filter/compile.ts';
import { unknownNames } from '../../analysis/filter/names.ts';
import type { Filter } from '../../analysis/filter/parse.ts';
import { Op, Space, type AccessBatch } from '../../model/access-batch.ts';
import type { StreamItem } from '../../model/stream.ts';
import { hex, hex64 } from '../../base/format.ts';
import { Tables } from '../../model/tables.ts';

/** Where something stands in a recording. */
export interface RecordingPlace {
  readonly timeNs: number;
  /** Accesses before it. */
  readonly row: number;
}

/** A wait for accesses that pass a filter, from a mark on. */
export interface AccessWatch {
  /** undefined: from the beginning. */
  readonly after: string | undefined;
  readonly filter: Filter;
  /** undefined until the mark has gone by. */
  passes: Predicate | undefined;
  count: number;
  /** The first one that passed, for people. */
  first: string | undefined;
  /** By our clock: when the last one passed, or the mark. */
  lastAtMs: number;
}

export class StreamWatch {
  readonly tables = new Tables();
  /** Marks so far, by their text: the last of each. */
  readonly marks = new Map<string, RecordingPlace>();
  #rows = 0;
  readonly #watches: AccessWatch[] = [];

  /** How many accesses there are so far. */
  get rows(): number {
    return this.#rows;
  }

  /** Counts from the mark `after` on, which has not gone by yet; undefined: from the first access on. */
  watch(after: string | undefined, filter: Filter): AccessWatch {
    const watch: AccessWatch = {
      after,
      filter,
      passes: after === undefined ? compileFilter(filter, this.tables) : undefined,
      count: 0,
      first: undefined,
      lastAtMs: performance.now(),
    };
    this.#watches.push(watch);
    return watch;
  }

  /** Names in a filter that nothing answers to, for people. */
  unknownNames(filter: Filter): string[] {
    return unknownNames(filter, this.tables);
  }

  take(item: StreamItem): void {
    if ('kind' in item) {
      this.tables.apply(item);
      if (item.kind !== 'mark') return;
      this.marks.set(item.text, { timeNs: item.timeNs, row: this.#rows });
      for (const watch of this.#watches) {
        if (watch.after !== item.text || watch.passes !== undefined) continue;
        watch.passes = compileFilter(watch.filter, this.tables);
        watch.lastAtMs = performance.now();
      }
      return;
    }
    for (const watch of this.#watches) if (watch.passes !== undefined) this.#look(watch, item);
    this.#rows += item.length;
  }

  #look(watch: AccessWatch, batch: AccessBatch): void {
    const before = watch.count;
    for (let row = 0; row < batch.length; row++) {
      if (watch.passes?.(batch, row) !== true) continue;
      watch.count++;
      watch.first ??= this.#describe(batch, row);
    }
    if (watch.count !== before) watch.lastAtMs = performance.now();
  }

  /** `write dut BAR0+0x3818 = 0x1` */
  #describe(batch: AccessBatch, row: number): string {
    const region = this.tables.regions[batch.region[row] ?? -1];
    const name = region === undefined ? '' : `${this.tables.deviceName(region.device)} `;
    const op = batch.op[row] === Op.write ? 'write' : 'read';
    const where = batch.space[row] === Space.config ? 'config' : (region?.name ?? '?');
    const value = hex64(batch.valueLo[row] ?? 0, batch.valueHi[row] ?? 0);
    return `${op} ${name}${where}+${hex(batch.offset[row] ?? 0)} = ${value}`;
  }
}
