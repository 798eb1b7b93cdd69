import { AccessBatch, Op } from '../../src/model/access-batch.ts';
import type { RecordingEvent } from '../../src/model/events.ts';
import { CaptureSink } from '../../src/sinks/capture.ts';
import { FileOutput } from '../../src/sinks/output.ts';
import { SAMPLE_DEVICE, SAMPLE_EVENTS, SAMPLE_HEADER } from './sample-session.ts';

const BATCH_ROWS = 4096;
const US = 1000;

/** Offsets of a network card's registers that its driver touches, as it does: some much, some hardly. */
const REGISTERS = [0x0, 0x8, 0x10, 0x14, 0x18, 0x20, 0xc0, 0xc4, 0xd0, 0xd8, 0x100, 0x400, 0x2800];

export interface BigCapture {
  readonly rows: number;
  readonly marks?: readonly string[];
  /** False: it goes on, as far as anyone can tell. */
  readonly ended?: boolean;
}

/**
 * A capture of any size, the same each time: poll loops of 100 reads until bit 3 is set, then a
 * write that acknowledges it, now and then a write to another register, an interrupt and, evenly
 * spread, the marks. An access a microsecond.
 */
export async function writeBigCapture(path: string, options: BigCapture): Promise<void> {
  const { rows, marks = ['driver loaded', 'link up'], ended = true } = options;
  const sink = new CaptureSink(await FileOutput.open(path));
  await sink.begin(SAMPLE_HEADER);
  for (const event of [
    { kind: 'device', timeNs: 0, device: SAMPLE_DEVICE },
    { ...SAMPLE_EVENTS.bar0, timeNs: 0 },
    { ...SAMPLE_EVENTS.map, timeNs: 0 },
    SAMPLE_EVENTS.coverage,
  ] satisfies RecordingEvent[]) {
    await sink.write(event);
  }
  const batch = new AccessBatch(BATCH_ROWS);
  let reads = 0;
  let nextMark = 0;
  for (let first = 0; first < rows; first += batch.length) {
    batch.length = Math.min(BATCH_ROWS, rows - first);
    for (let row = 0; row < batch.length; row++) reads += putAccess(batch, row, first + row);
    await sink.write(batch);
    const timeNs = (first + batch.length) * US;
    await sink.write({ kind: 'interrupt', timeNs, device: 0, type: 'msix', vector: 3 });
    if (
      nextMark < marks.length &&
      first + batch.length >= (rows * (nextMark + 1)) / (marks.length + 1)
    ) {
      await sink.write({ kind: 'mark', timeNs, text: marks[nextMark++] ?? '' });
    }
  }
  if (ended) {
    const counters = { reads, writes: rows - reads, lost: 0, lossEvents: 0, damagedLines: 0 };
    const statement = { ...SAMPLE_EVENTS.coverage.statement, phase: 'end' } as const;
    await sink.write({ kind: 'coverage', timeNs: rows * US, statement });
    const end = { ...counters, otherLines: {} };
    await sink.write({ kind: 'end', timeNs: rows * US, complete: false, counters: end });
  }
  await sink.end();
}

/** Returns 1 for a read. */
function putAccess(batch: AccessBatch, row: number, place: number): number {
  const step = place % 104;
  const turn = Math.floor(place / 104);
  const other = REGISTERS[turn % REGISTERS.length] ?? 0;
  batch.timeNs[row] = place * US;
  batch.space[row] = 0;
  batch.width[row] = 4;
  batch.region[row] = 0;
  batch.mapId[row] = 1;
  batch.cpu[row] = turn % 4;
  batch.valueHi[row] = 0;
  batch.op[row] = step === 101 || step === 103 ? Op.write : Op.read;
  batch.offset[row] = step <= 101 ? 0xc0 : other;
  batch.valueLo[row] =
    step < 100
      ? 0x80000003
      : step === 100
        ? 0x8000000b
        : step === 101
          ? 0x8
          : (turn * 0x9e3779b1) >>> 0;
  return batch.op[row] === Op.read ? 1 : 0;
}
