import { AccessBatch } from '../model/access-batch.ts';
import type { Tables } from '../model/tables.ts';
import { compileFilter, type Predicate } from './filter/compile.ts';
import type { Filter } from './filter/parse.ts';
import { isWhole, spanHas, WHOLE, type Span } from './span.ts';

/** Which accesses: those that pass a filter, within a span. */
export interface RowSelection {
  readonly filter?: Filter | undefined;
  readonly span?: Span | undefined;
}

/** Picks rows out of batches. */
export class RowSelector {
  readonly #span: Span;
  readonly #hasAll: boolean;
  readonly #passes: Predicate | undefined;
  #part = new AccessBatch(1);
  #picked = new Uint32Array(1);

  /** @param tables where the filter looks up devices and regions, as they are when it does */
  constructor({ filter, span = WHOLE }: RowSelection, tables: Tables) {
    this.#span = span;
    this.#passes =
      filter === undefined || filter.kind === 'all' ? undefined : compileFilter(filter, tables);
    this.#hasAll = this.#passes === undefined && isWhole(span);
  }

  hasTime(timeNs: number): boolean {
    return spanHas(this.#span, timeNs);
  }

  has(batch: AccessBatch, row: number): boolean {
    return (
      this.#hasAll || (this.hasTime(batch.timeNs[row]!) && (this.#passes?.(batch, row) ?? true))
    );
  }

  /**
   * The rows from `from` on that belong to the selection: the batch itself where all do, undefined
   * where none does. Valid until the next call.
   */
  select(batch: AccessBatch, from = 0): AccessBatch | undefined {
    if (from === 0 && this.#hasAll) return batch;
    if (this.#part.capacity < batch.length) {
      this.#part = new AccessBatch(batch.capacity);
      this.#picked = new Uint32Array(batch.capacity);
    }
    const part = this.#part;
    part.length = 0;
    for (let row = from; row < batch.length;) {
      while (row < batch.length && !this.has(batch, row)) row++;
      const first = row;
      while (row < batch.length && this.has(batch, row)) row++;
      for (let at = first; at < row; at++) this.#picked[part.length + at - first] = at;
      part.append(batch, first, row);
    }
    return part.length === 0 ? undefined : part;
  }

  /** In which row of the batch each row stood that `select` has picked last; not if it was all. */
  get picked(): Uint32Array {
    return this.#picked;
  }
}
