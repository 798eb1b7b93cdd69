/** How far a source has been read: segment number (1 and up, or 0 for a plain file) and byte. */
export interface SourcePosition {
  readonly segment: number;
  readonly offset: number;
}

/** `byte 12`, `segment 3 byte 12` */
export function positionText({ segment, offset }: SourcePosition): string {
  return segment === 0 ? `byte ${offset}` : `segment ${segment} byte ${offset}`;
}

export function isBefore(a: SourcePosition, b: SourcePosition): boolean {
  return a.segment < b.segment || (a.segment === b.segment && a.offset < b.offset);
}
