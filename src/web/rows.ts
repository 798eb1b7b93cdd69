/** The accesses of the list, a page of them at a time as they are looked at. */
import { signal } from '@preact/signals';
import type { AccessBatch } from '../model/access-batch.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import { PayloadDecoder } from '../wire/payload.ts';
import { ask } from './connection.ts';
import { f64, LIST, u32 } from './shown.ts';
import { list, listEpoch } from './state.ts';

export interface Row {
  /** Number in the recording. */
  readonly rowNumber: number;
  readonly timeNs: number;
  readonly op: number;
  readonly space: number;
  readonly width: number;
  readonly region: number;
  readonly offset: number;
  readonly value: readonly [number, number];
  /** What the register held before, if that was of the same width. */
  readonly before: readonly [number, number] | undefined;
  /** The access before was of another width. */
  readonly otherWidth: boolean;
  readonly cpu: number;
  readonly pc: readonly [number, number];
}

const PAGE_ROWS = 256;
const MAX_PAGES = 64;

/** Grows when rows have come. */
export const arrived = signal(0);

/** Least recently used first. */
const pages = new Map<number, readonly Row[]>();
const asked = new Set<number>();
let epoch = -1;

/** The row, if it is here; else it is asked for. */
export function rowAt(index: number): Row | undefined {
  if (epoch !== listEpoch.peek()) {
    epoch = listEpoch.peek();
    pages.clear();
    asked.clear();
  }
  const number = Math.floor(index / PAGE_ROWS);
  const page = pages.get(number);
  const row = page?.[index - number * PAGE_ROWS];
  if (row === undefined) void load(number);
  else if (page !== undefined) {
    pages.delete(number);
    pages.set(number, page);
  }
  return row;
}

async function load(number: number): Promise<void> {
  if (asked.has(number)) return;
  asked.add(number);
  const mine = epoch;
  try {
    const { rows } = await ask({
      rows: { slot: LIST, first: number * PAGE_ROWS, count: PAGE_ROWS },
    });
    if (mine !== epoch || !rows) return;
    pages.set(number, decode(rows));
    for (const old of pages.keys()) {
      if (pages.size <= MAX_PAGES) break;
      pages.delete(old);
    }
    // One that was cut short by the end of the list is asked for again when that has grown.
    arrived.value++;
  } catch {
    // The connection was lost: whoever needs it asks again.
  } finally {
    if (mine === epoch) asked.delete(number);
  }
}

function decode(message: mmiobridge.v1.Rows.$Properties): Row[] {
  const decoder = new PayloadDecoder();
  const numbers = f64(message.rowNumber);
  const lo = u32(message.beforeLow);
  const hi = u32(message.beforeHigh);
  const rows: Row[] = [];
  for (const frame of message.frames ?? []) {
    const batch = decoder.decode(frame) as AccessBatch;
    for (let row = 0; row < batch.length; row++) {
      const at = rows.length;
      rows.push({
        rowNumber: numbers[at] ?? 0,
        timeNs: batch.timeNs[row] ?? 0,
        op: batch.op[row] ?? 0,
        space: batch.space[row] ?? 0,
        width: batch.width[row] ?? 0,
        region: batch.region[row] ?? 0,
        offset: batch.offset[row] ?? 0,
        value: [batch.valueLo[row] ?? 0, batch.valueHi[row] ?? 0],
        otherWidth: message.known?.[at] === 2,
        before: message.known?.[at] === 1 ? [lo[at] ?? 0, hi[at] ?? 0] : undefined,
        cpu: batch.cpu[row] ?? -1,
        pc: [batch.pcLo[row] ?? 0, batch.pcHi[row] ?? 0],
      });
    }
  }
  return rows;
}

/** How long the list is. */
export const rowCount = (): number => list.value?.rows ?? 0;
