/** Pages of a selection: some of its accesses, one after the other, and what was there before. */
import { AccessBatch } from '../model/access-batch.ts';
import { ColumnEncoder } from '../wire/column-encoder.ts';
import { bytesOf } from '../wire/columns.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import { OTHERS } from '../analysis/register-table.ts';
import type { CaptureIndex } from './capture-index.ts';
import type { Selection } from './selection.ts';

/** Accesses that were taken out of the file. */
export interface RowPage {
  readonly batch: AccessBatch;
  /** Number of each in the recording. */
  readonly numbers: Float64Array;
}

/** Accesses `first` to `first + count` of the selection, or as many as there are. */
export async function readRowPage(
  index: CaptureIndex,
  selection: Selection,
  first: number,
  count: number,
): Promise<RowPage> {
  const batch = new AccessBatch(Math.max(1, count));
  const numbers = new Float64Array(count);
  let passed = 0;
  for (let at = 0; at < index.blocks.length && batch.length < count; at++) {
    const inBlock = selection.inBlock[at] ?? 0;
    if (passed + inBlock <= first || inBlock === 0) {
      passed += inBlock;
      continue;
    }
    const block = index.blocks[at]!;
    let number = block.firstRow;
    for await (const from of index.batches(block)) {
      for (let row = 0; row < from.length && batch.length < count; row++) {
        if (!selection.has(from, row) || passed++ < first) continue;
        numbers[batch.length] = number + row;
        batch.append(from, row, row + 1);
      }
      number += from.length;
    }
  }
  return { batch, numbers: numbers.subarray(0, batch.length) };
}

/** As `Rows.known` has it. */
const KNOWN = 1;
const OTHER_WIDTH = 2;

interface Before {
  readonly known: Uint8Array;
  readonly lo: Uint32Array;
  readonly hi: Uint32Array;
}

/** For each access of a page: what its register held before, whatever the selection leaves out. */
async function valuesBefore(index: CaptureIndex, page: RowPage): Promise<Before> {
  const { batch, numbers } = page;
  const before: Before = {
    known: new Uint8Array(batch.length),
    lo: new Uint32Array(batch.length),
    hi: new Uint32Array(batch.length),
  };
  const registers = index.registers.column(batch).slice(0, batch.length);
  // From each block the last value before a row is wanted: rows that are not settled, by block.
  const wanted = new Map<number, number[]>();
  const want = (block: number, row: number): void => {
    if (block < 0) return;
    const rows = wanted.get(block);
    if (rows === undefined) wanted.set(block, [row]);
    else rows.push(row);
  };
  for (let row = 0; row < batch.length; row++) {
    // Of registers that are not told apart nobody knows it.
    if (registers[row] !== OTHERS) want(blockOf(index, numbers[row]!), row);
  }

  while (wanted.size > 0) {
    const number = Math.max(...wanted.keys());
    const rows = wanted.get(number) ?? [];
    wanted.delete(number);
    await settle(index, number, rows, registers, page, before);
    for (const row of rows) {
      if (before.known[row] === 0) want(index.blockBefore(number, registers[row]!), row);
    }
  }
  return before;
}

/** Takes what a block has for the given rows, which are in order of their number. */
async function settle(
  index: CaptureIndex,
  block: number,
  rows: readonly number[],
  registers: Uint32Array,
  { batch: { width: widths }, numbers }: RowPage,
  before: Before,
): Promise<void> {
  const wanted = new Set(rows.map((row) => registers[row]!));
  const last = new Map<number, readonly [number, number, number]>();
  const waiting = rows.toSorted((a, b) => numbers[a]! - numbers[b]!);
  let next = 0;
  const settleUpTo = (rowNumber: number): void => {
    for (; next < waiting.length && numbers[waiting[next]!]! <= rowNumber; next++) {
      const row = waiting[next]!;
      const value = last.get(registers[row]!);
      if (value === undefined) continue;
      const [lo, hi, width] = value;
      before.known[row] = width === widths[row] ? KNOWN : OTHER_WIDTH;
      before.lo[row] = lo;
      before.hi[row] = hi;
    }
  };
  const at = index.blocks[block]!;
  let number = at.firstRow;
  for await (const batch of index.batches(at)) {
    const column = index.registers.column(batch);
    for (let row = 0; row < batch.length && next < waiting.length; row++, number++) {
      if (!wanted.has(column[row]!)) continue;
      settleUpTo(number);
      last.set(column[row]!, [batch.valueLo[row]!, batch.valueHi[row]!, batch.width[row]!]);
    }
    if (next === waiting.length) return;
  }
  settleUpTo(Infinity);
}

function blockOf({ blocks }: CaptureIndex, rowNumber: number): number {
  let low = 0;
  let high = blocks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (blocks[middle]!.firstRow <= rowNumber) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** As the browser gets it. */
export async function rowsMessage(
  index: CaptureIndex,
  selection: Selection,
  first: number,
  count: number,
): Promise<mmiobridge.v1.Rows.$Properties> {
  const page = await readRowPage(index, selection, first, count);
  const before = await valuesBefore(index, page);
  const { batch, numbers } = page;
  return {
    first,
    frames: encode(batch),
    rowNumber: new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength),
    known: before.known,
    beforeLow: bytesOf(before.lo, 0, batch.length),
    beforeHigh: bytesOf(before.hi, 0, batch.length),
  };
}

function encode(batch: AccessBatch): Uint8Array[] {
  const encoder = new ColumnEncoder();
  const frames: Uint8Array[] = [];
  for (let row = 0; row < batch.length;) {
    row = encoder.take(batch, row);
    const frame = new Uint8Array(encoder.byteLength);
    encoder.writeTo(frame, 0);
    frames.push(frame);
  }
  return frames;
}
