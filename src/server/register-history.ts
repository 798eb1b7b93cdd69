import { RegisterHistory } from '../analysis/register-history.ts';
import { RowSelector } from '../analysis/row-selector.ts';
import type { Span } from '../analysis/span.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import type { CaptureIndex } from './capture-index.ts';

/** All that happened to one register within a span. */
export async function historyMessage(
  index: CaptureIndex,
  span: Span,
  region: number,
  offset: number,
): Promise<mmiobridge.v1.History.$Properties> {
  const history = new RegisterHistory(region, offset);
  const rows = new RowSelector({ span }, index.tables);
  for (const number of index.blocksOf(index.registers.find(region, offset))) {
    const block = index.blocks[number]!;
    if (block.maxNs < span.fromNs || block.minNs >= span.toNs) continue;
    let rowNumber = block.firstRow;
    for await (const batch of index.batches(block)) {
      const picked = rows.select(batch);
      if (picked !== undefined) {
        history.add(picked, (row) => rowNumber + (picked === batch ? row : rows.picked[row]!));
      }
      rowNumber += batch.length;
    }
  }
  const { entries, leftOut, reads, writes } = history.result();
  return {
    entries: entries.map(({ value, pc, ...entry }) => ({
      ...entry,
      valueLow: value[0],
      valueHigh: value[1],
      pcLow: pc[0],
      pcHigh: pc[1],
    })),
    leftOut,
    reads,
    writes,
  };
}
