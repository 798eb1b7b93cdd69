/** A part of a recording, by session time in nanoseconds. */
export interface Span {
  /** -Infinity: from the beginning. */
  readonly fromNs: number;
  /** Exclusive; Infinity: to the end. */
  readonly toNs: number;
}

export const WHOLE: Span = { fromNs: -Infinity, toNs: Infinity };

export function isWhole({ fromNs, toNs }: Span): boolean {
  return fromNs === -Infinity && toNs === Infinity;
}

export function spanHas({ fromNs, toNs }: Span, timeNs: number): boolean {
  return timeNs >= fromNs && timeNs < toNs;
}
