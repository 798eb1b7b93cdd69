import { Op } from '../model/access-batch.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import type { CaptureIndex } from './capture-index.ts';
import type { SelectionKey } from './selection.ts';

const MAX_ENTRIES = 2000;

type Entry = {
  -readonly [
    K in keyof mmiobridge.v1.HistoryEntry.$Properties
  ]: mmiobridge.v1.HistoryEntry.$Properties[K];
};

/**
 * All that happened to one register within a span. Reads that follow each other, by one vCPU and
 * with one value, are one entry: a poll loop.
 */
export async function historyMessage(
  index: CaptureIndex,
  span: SelectionKey,
  region: number,
  offset: number,
): Promise<mmiobridge.v1.History.$Properties> {
  const history = { entries: [] as Entry[], leftOut: 0, reads: 0, writes: 0 };
  const register = index.registers.find(region, offset);
  for (const number of blocksOf(index, register)) {
    const block = index.blocks[number]!;
    if (block.maxNs < span.fromNs || block.minNs >= span.toNs) continue;
    let place = block.firstRow;
    for await (const batch of index.batches(block)) {
      const column = index.registers.column(batch);
      for (let row = 0; row < batch.length; row++, place++) {
        if (column[row] !== register) continue;
        const timeNs = batch.timeNs[row]!;
        if (timeNs < span.fromNs || timeNs >= span.toNs) continue;
        const write = batch.op[row] === Op.write;
        if (write) history.writes++;
        else history.reads++;
        const valueLow = batch.valueLo[row]!;
        const valueHigh = batch.valueHi[row]!;
        const last = history.entries.at(-1);
        if (
          !write &&
          last?.write === false &&
          last.valueLow === valueLow &&
          last.valueHigh === valueHigh &&
          last.cpu === batch.cpu[row]
        ) {
          last.count!++;
          last.lastNs = timeNs;
          continue;
        }
        history.entries.push({
          write,
          firstNs: timeNs,
          lastNs: timeNs,
          count: 1,
          valueLow,
          valueHigh,
          cpu: batch.cpu[row]!,
          pcLow: batch.pcLo[row]!,
          pcHigh: batch.pcHi[row]!,
          width: batch.width[row]!,
          number: place,
        });
      }
    }
    // Twice as many are let come together, so that it is not done for each.
    if (history.entries.length > 2 * MAX_ENTRIES) drop(history);
  }
  drop(history);
  return history;
}

function drop(history: { entries: Entry[]; leftOut: number }): void {
  const more = history.entries.length - MAX_ENTRIES;
  if (more <= 0) return;
  history.entries.splice(0, more);
  history.leftOut += more;
}

/** The blocks that touch a register, ascending. */
function blocksOf(index: CaptureIndex, register: number): number[] {
  const found: number[] = [];
  if (register < 0) return found;
  let block = index.blocks.findLastIndex(({ touched }) => touched.includes(register));
  for (; block >= 0; block = index.blockBefore(block, register)) found.push(block);
  return found.toReversed();
}
