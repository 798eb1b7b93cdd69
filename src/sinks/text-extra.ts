/** Accesses that mmiotrace text has no line for, and of which it tells by MARKs if asked to. */
export const TEXT_EXTRAS = ['config', 'rom'] as const;
export type TextExtra = (typeof TEXT_EXTRAS)[number];

export interface SinkOptions {
  /** Of text only: the other formats have all accesses always. */
  readonly textExtra?: readonly TextExtra[] | undefined;
}
