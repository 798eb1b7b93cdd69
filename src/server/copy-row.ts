import type { AccessBatch } from '../model/access-batch.ts';

/** Puts one access to the end of a batch that has room for it. */
export function copyRow(from: AccessBatch, row: number, to: AccessBatch): void {
  const at = to.length++;
  to.timeNs[at] = from.timeNs[row]!;
  to.op[at] = from.op[row]!;
  to.space[at] = from.space[row]!;
  to.width[at] = from.width[row]!;
  to.region[at] = from.region[row]!;
  to.mapId[at] = from.mapId[row]!;
  to.offset[at] = from.offset[row]!;
  to.valueLo[at] = from.valueLo[row]!;
  to.valueHi[at] = from.valueHi[row]!;
  to.cpu[at] = from.cpu[row]!;
  to.pcLo[at] = from.pcLo[row]!;
  to.pcHi[at] = from.pcHi[row]!;
}
