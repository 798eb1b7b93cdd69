import { AnalysisPass } from '../analysis/analysis.ts';
import { checkEnd } from '../analysis/end-check.ts';
import { TotalsAnalysis } from '../analysis/totals.ts';
import type { EndEvent } from '../model/events.ts';
import { isBatch, type Recording, type StreamItem } from '../model/stream.ts';

/**
 * The same recording, whose end has been held against what came before it (`checkEnd`). What speaks
 * against it is in `doubts`; one that has no end gets none.
 */
export function verified(recording: Recording): Recording {
  const doubts: string[] = [];
  async function* items(): AsyncGenerator<StreamItem> {
    const totals = new TotalsAnalysis();
    const pass = new AnalysisPass([totals]);
    let told: EndEvent | undefined;
    let isLast = true;
    for await (const item of recording.items()) {
      isLast = !isBatch(item) && item.kind === 'end';
      if (!isBatch(item) && item.kind === 'end') {
        told ??= item;
        continue;
      }
      pass.write(item);
      yield item;
    }
    if (told === undefined) {
      doubts.push('it has no end: it was cut off, or is still being recorded');
      return;
    }
    const { end, loss, doubts: found } = checkEnd(told, totals.result());
    doubts.push(...found, ...(isLast ? [] : ['something stands behind its end']));
    if (loss !== undefined) yield loss;
    yield { ...end, complete: end.complete && isLast };
  }
  const { header, unknownFrames } = recording;
  return { header, doubts, items, ...(unknownFrames && { unknownFrames }) };
}
