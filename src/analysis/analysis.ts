/**
 * What is computed from a recording, whatever shows it: terminal, page, lab or browser. An analysis
 * is a file here; what it gives is plain data.
 */
import type { AccessBatch } from '../model/access-batch.ts';
import type { RecordingEvent } from '../model/events.ts';
import { isBatch, type StreamItem } from '../model/stream.ts';
import { Tables } from '../model/tables.ts';
import { RowSelector, type RowSelection } from './row-selector.ts';

/**
 * Items come in stream order. A batch is valid during the call; the tables have all that the stream
 * told before it, and an event itself.
 */
export interface Analysis<Result> {
  batch(batch: AccessBatch, tables: Tables): void;
  event(event: RecordingEvent, tables: Tables): void;
  result(): Result;
}

/** One pass over a stream, which feeds any number of analyses. */
export class AnalysisPass {
  readonly tables: Tables;
  readonly #analyses: readonly Analysis<unknown>[];
  readonly #rows: RowSelector | undefined;

  /** @param selection the accesses that the analyses see, and the times of events; undefined: all */
  constructor(
    analyses: readonly Analysis<unknown>[],
    { tables = new Tables(), selection }: { tables?: Tables; selection?: RowSelection } = {},
  ) {
    this.#analyses = analyses;
    this.tables = tables;
    this.#rows = selection && new RowSelector(selection, tables);
  }

  /** Takes the next item of the stream. */
  write(item: StreamItem): void {
    if (!isBatch(item)) {
      this.tables.apply(item);
      if (this.#rows?.hasTime(item.timeNs) === false) return;
      for (const analysis of this.#analyses) analysis.event(item, this.tables);
      return;
    }
    const rows = this.#rows === undefined ? item : this.#rows.select(item);
    if (rows === undefined) return;
    for (const analysis of this.#analyses) analysis.batch(rows, this.tables);
  }
}
