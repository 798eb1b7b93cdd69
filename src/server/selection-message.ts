import type { mmiobridge } from '../wire/generated/types.ts';
import { bytesOf } from '../wire/columns.ts';
import type { CaptureIndex } from './capture-index.ts';
import type { Selection } from './selection.ts';

/** More do not fit a screen. */
const MAX_REGISTERS = 4096;

export type SelectionMessage = Omit<mmiobridge.v1.Selection.$Properties, 'slot'>;

/** A selection as the page is told of it. */
export function selectionMessage(selection: Selection, index: CaptureIndex): SelectionMessage {
  selection.countInterrupts();
  const { histogram } = selection;
  const { length, fromNs, widthNs } = histogram;
  const numbers = registersOf(selection, index);
  return {
    rows: selection.rows,
    seen: selection.seen,
    caughtUp: selection.caughtUp,
    reads: selection.reads,
    writes: selection.writes,
    histogram: {
      fromNs,
      widthNs,
      reads: bytesOf(histogram.reads, 0, length),
      writes: bytesOf(histogram.writes, 0, length),
      interrupts: bytesOf(histogram.interrupts, 0, length),
    },
    registerCount: numbers.length,
    registers: registerColumns(busiest(numbers, selection), selection, index),
  };
}

/** Numbers of the registers with accesses. */
function registersOf(selection: Selection, index: CaptureIndex): number[] {
  const numbers: number[] = [];
  for (let number = 0; number < index.registers.length; number++) {
    if (countOf(selection, number) > 0) numbers.push(number);
  }
  return numbers;
}

function busiest(numbers: number[], selection: Selection): number[] {
  if (numbers.length <= MAX_REGISTERS) return numbers;
  return numbers
    .toSorted((a, b) => countOf(selection, b) - countOf(selection, a))
    .slice(0, MAX_REGISTERS);
}

function countOf({ registerReads, registerWrites }: Selection, number: number): number {
  return (registerReads[number] ?? 0) + (registerWrites[number] ?? 0);
}

function registerColumns(
  numbers: readonly number[],
  selection: Selection,
  { registers }: CaptureIndex,
): mmiobridge.v1.Registers.$Properties {
  const { region, offset } = registers;
  const ordered = numbers.toSorted((a, b) => region[a]! - region[b]! || offset[a]! - offset[b]!);
  const u32 = (of: (number: number) => number): Uint8Array => {
    const column = Uint32Array.from(ordered, of);
    return bytesOf(column, 0, column.length);
  };
  const regions = Uint16Array.from(ordered, (number) => region[number]!);
  return {
    region: bytesOf(regions, 0, regions.length),
    offsetLow: u32((number) => offset[number]!),
    offsetHigh: u32((number) => Math.floor(offset[number]! / 2 ** 32)),
    reads: u32((number) => selection.registerReads[number]!),
    writes: u32((number) => selection.registerWrites[number]!),
    valueLow: u32((number) => selection.valueLo[number]!),
    valueHigh: u32((number) => selection.valueHi[number]!),
    width: Uint8Array.from(ordered, (number) => selection.width[number]!),
  };
}
