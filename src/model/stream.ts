import { AccessBatch } from './access-batch.ts';
import type { RecordingEvent, RecordingHeader } from './events.ts';
import type { TablesSnapshot } from './tables.ts';

/** What flows from a source to the sinks, in the order in which it happened. */
export type StreamItem = AccessBatch | RecordingEvent;

export function isBatch(item: StreamItem): item is AccessBatch {
  return item instanceof AccessBatch;
}

/**
 * A recording that is read: the header, then the stream. A batch is valid until the next item is
 * asked for. Throws MmioError `damaged` where nothing can be read at all; damage in the middle
 * comes as an event.
 */
export interface Recording {
  readonly header: RecordingHeader;
  /** Of a capture: frames of kinds that are not known, by kind, as far as it was read. */
  readonly unknownFrames?: ReadonlyMap<number, number>;
  /** Why it is not to be believed complete, as far as it was read; grows. */
  readonly doubts?: readonly string[];
  items(): AsyncIterable<StreamItem>;
}

/**
 * Writes a stream down in one format. Calls come one after another; `write` returns a promise when
 * the output has fallen behind, and the caller awaits it before the next call.
 */
export interface Sink {
  /** A new recording begins. */
  begin(header: RecordingHeader): void | Promise<void>;
  /** A recording goes on at the place where the output was cut off; nothing is written. */
  resume(header: RecordingHeader, tables: TablesSnapshot, leftOut: number): void;
  /** How many accesses the format has had no line for. */
  readonly leftOut: number;
  write(item: StreamItem): void | Promise<void>;
  /** All that was written so far is handed to the system; resolves to the output's length. */
  flush(): Promise<number>;
  /** Writes what the format has at its end, flushes and closes. */
  end(): Promise<void>;
}
