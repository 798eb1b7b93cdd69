import type { EndEvent, RecordingEvent } from '../model/events.ts';
import { isBatch, type StreamItem } from '../model/stream.ts';
import { Tables } from '../model/tables.ts';
import { RowSelector } from './row-selector.ts';
import { spanHas, type Span } from './span.ts';
import { countersOf, TotalsAnalysis } from './totals.ts';

/**
 * Cuts a span out of a stream: what happened in it, with the devices and mappings from before that
 * it needs, and an end that has counters of its own.
 */
export class SpanCut {
  readonly #span: Span;
  readonly #rows: RowSelector;
  readonly #totals = new TotalsAnalysis();

  constructor(span: Span) {
    this.#span = span;
    this.#rows = new RowSelector({ span }, new Tables());
  }

  /** What is left of an item, valid until the next call; undefined: nothing. */
  take(item: StreamItem): StreamItem | undefined {
    if (isBatch(item)) {
      const rows = this.#rows.select(item);
      if (rows !== undefined) this.#totals.batch(rows);
      return rows;
    }
    if (item.kind === 'end') return this.#end(item);
    if (!this.#keeps(item)) return undefined;
    this.#totals.event(item);
    return item;
  }

  #keeps(event: RecordingEvent): boolean {
    switch (event.kind) {
      case 'device':
      case 'region':
      case 'map':
      case 'unmap':
        return event.timeNs < this.#span.toNs;
      case 'coverage':
        return true;
      default:
        return spanHas(this.#span, event.timeNs);
    }
  }

  #end(end: EndEvent): EndEvent {
    const timeNs = Math.min(end.timeNs, this.#span.toNs);
    return { ...end, timeNs, counters: countersOf(this.#totals.result(), {}) };
  }
}
