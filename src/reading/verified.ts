import { checkEnd } from '../analysis/end-check.ts';
import { TotalsAnalysis } from '../analysis/totals.ts';
import type { EndEvent } from '../model/events.ts';
import { StreamCheck } from '../analysis/stream-check.ts';
import { isBatch, type Recording, type StreamItem } from '../model/stream.ts';

/** A person reads no more. */
const MAX_DOUBTS = 20;

/**
 * The same recording, whose end has been held against what came before it (`checkEnd`). What speaks
 * against it is in `doubts`; one that has no end gets none.
 */
export function verified(recording: Recording): Recording {
  const { header, unknownFrames } = recording;
  const doubts: string[] = [];
  async function* items(): AsyncGenerator<StreamItem> {
    const totals = new TotalsAnalysis();
    const check = new StreamCheck(header);
    let told: EndEvent | undefined;
    let isLast = true;
    for await (const item of recording.items()) {
      isLast = told === undefined;
      if (!isBatch(item) && item.kind === 'end') {
        told ??= item;
        continue;
      }
      const complaint = check.check(item);
      if (complaint !== undefined && doubts.length < MAX_DOUBTS) doubts.push(`it has ${complaint}`);
      if (isBatch(item)) totals.batch(item);
      else totals.event(item);
      yield item;
    }
    if (told === undefined) {
      doubts.push('it has no end: it was cut off, or is still being recorded');
      return;
    }
    const isClean = doubts.length === 0;
    const { end, loss, doubts: found } = checkEnd(told, totals.result());
    doubts.push(...found, ...(isLast ? [] : ['something stands behind its end']));
    if (loss !== undefined) yield loss;
    yield { ...end, complete: end.complete && isLast && isClean };
  }
  return { header, doubts, items, ...(unknownFrames && { unknownFrames }) };
}
