import type { SourcePosition } from '../model/position.ts';
import type { RawBatch } from './raw-batch.ts';
import type { RawEvent, RawTarget } from './raw-events.ts';

/**
 * Reads the spool of a recording: bytes in, batches and events out. Pulled: `feed` it, then call
 * `next` until it has no more; nothing is parsed meanwhile.
 */
export interface SpoolDecoder {
  /** What accesses go to; grows. Batches have indexes into it. */
  readonly targets: readonly RawTarget[];
  /** Lines, or the like, that are not ours, by name. */
  readonly otherLines: ReadonlyMap<string, number>;
  /** Lines with and without a time of their own. */
  readonly stampedLines: number;
  readonly unstampedLines: number;
  /** Everything before it has been handed out. */
  readonly position: SourcePosition;
  /** What follows comes from another segment, or another place of it. Call `finish` first. */
  beginSegment(segment: number, offset: number): void;
  /** Hands over more bytes. All earlier items must have been taken by `next`. */
  feed(chunk: Uint8Array): void;
  /** A batch, valid until the next call, or an event; undefined where more bytes are needed. */
  next(): RawBatch | RawEvent | undefined;
  /** The segment is at its end: what is left comes from `next`. */
  finish(): void;
}

/** What a decoder has counted, as plain JSON. */
export interface LineCounts {
  readonly stamped: number;
  readonly unstamped: number;
  readonly others: readonly (readonly [string, number])[];
}

export const NO_LINES: LineCounts = { stamped: 0, unstamped: 0, others: [] };

export function lineCountsOf(
  decoder: Pick<SpoolDecoder, 'stampedLines' | 'unstampedLines' | 'otherLines'>,
): LineCounts {
  return {
    stamped: decoder.stampedLines,
    unstamped: decoder.unstampedLines,
    others: [...decoder.otherLines],
  };
}
