/** Accesses that mmiotrace text has no line for, and of which it tells by MARKs if asked to. */
export const MARKED = ['config', 'rom'] as const;
export type Marked = (typeof MARKED)[number];

export interface SinkOptions {
  /** Of text only: the other formats have all accesses always. */
  readonly marks?: readonly Marked[] | undefined;
}
