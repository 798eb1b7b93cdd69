import { AccessBatch, NO_CPU } from '../../src/model/access-batch.ts';
import type { SourcePosition } from '../../src/model/position.ts';
import { NO_BAR } from '../../src/model/device.ts';
import type { RecordingEvent, RecordingHeader } from '../../src/model/events.ts';
import { isBatch, type StreamItem } from '../../src/model/stream.ts';
import { CaptureSink } from '../../src/sinks/capture.ts';
import { openCapture } from '../../src/sources/capture-file.ts';
import { MemoryOutput } from './memory-output.ts';

/** One row of a batch. */
export interface Access {
  timeNs: number;
  op: number;
  space: number;
  width: number;
  region: number;
  mapId: number;
  offset: number;
  valueLo: number;
  valueHi: number;
  cpu: number;
  pcLo: number;
  pcHi: number;
}

/** A batch that is not overwritten, and can be compared. */
export interface PlainBatch {
  readonly rows: readonly Access[];
  readonly position: SourcePosition | undefined;
}

export const PLAIN_READ: Readonly<Access> = {
  timeNs: 0,
  op: 0,
  space: 0,
  width: 4,
  region: 0,
  mapId: 1,
  offset: 0,
  valueLo: 0,
  valueHi: 0,
  cpu: NO_CPU,
  pcLo: 0,
  pcHi: 0,
};

export const COLUMNS = [
  'timeNs',
  'op',
  'space',
  'width',
  'region',
  'mapId',
  'offset',
  'valueLo',
  'valueHi',
  'cpu',
  'pcLo',
  'pcHi',
] as const satisfies readonly (keyof Access)[];

export function batchOf(rows: readonly Access[], position?: SourcePosition): AccessBatch {
  const batch = new AccessBatch(Math.max(rows.length, 1));
  batch.length = rows.length;
  batch.position = position;
  for (const name of COLUMNS) {
    for (const [index, row] of rows.entries()) batch[name][index] = row[name];
  }
  return batch;
}

export function plain(batch: AccessBatch): PlainBatch {
  const rows = Array.from({ length: batch.length }, (_, index) => {
    const row = { ...PLAIN_READ };
    for (const name of COLUMNS) row[name] = batch[name][index] ?? NaN;
    return row;
  });
  return { rows, position: batch.position };
}

export const HEADER: RecordingHeader = {
  tool: 'mmiobridge 0.1.0',
  source: 'qemu-log',
  startSec: 1_700_000_000,
  startNs: 999_999_999,
  textBaseSec: 0,
  clock: 'qemu',
  qemuVersion: '7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)',
  argv: ['qemu-system-x86_64', '-device', 'vfio-pci,host=01:00.0', '-name', 'größe ☃'],
};

/** An event of each kind. The compiler sees to it that none is missing. */
export const EVENTS: {
  readonly [Kind in RecordingEvent['kind']]: RecordingEvent & { kind: Kind };
} = {
  failed: {
    kind: 'failed',
    timeNs: 6,
    write: true,
    region: 65535,
    offset: 2 ** 40,
    width: 8,
    value: '0xffffffffffffffff',
    reason: 'Input/output error',
  },
  device: {
    kind: 'device',
    timeNs: 1,
    device: {
      id: 3,
      name: 'gpu',
      type: 'vfio-pci',
      qemuId: 'gpu0',
      hostAddress: '0000:01:00.0',
      bus: 1,
      devfn: 0xff,
      vendorId: 0x10de,
      deviceId: 0xffff,
      classCode: 0x030000,
      irq: 11,
      bars: [
        { start: 0x38_0000_0000, flags: 12, sizeBytes: 2 ** 36 },
        NO_BAR,
        { start: 0xc000, flags: 1, sizeBytes: 128 },
        NO_BAR,
        NO_BAR,
        NO_BAR,
        { start: 0xfff8_0000, flags: 0, sizeBytes: 0x8_0000 },
      ],
      driver: 'nvlddmkm',
    },
  },
  region: {
    kind: 'region',
    timeNs: 2,
    region: { id: 65535, device: -1, kind: 'window', bar: -1, name: 'BAR0', sizeBytes: 2 ** 40 },
  },
  map: {
    kind: 'map',
    timeNs: 3,
    mapping: {
      mapId: 4_294_967_295,
      region: 2,
      regionOffset: 0x1000,
      gpa: 2 ** 52 + 4096,
      lengthBytes: 2 ** 33,
      virt: '0xffffc90000a00000',
    },
  },
  unmap: { kind: 'unmap', timeNs: 4, mapId: 7 },
  mark: { kind: 'mark', timeNs: 5, text: 'modeset 1920×1080 \u0000\n' },
  notice: { kind: 'notice', timeNs: 5, text: 'gpu BAR0: no mapping known' },
  loss: { kind: 'loss', timeNs: 6, count: -1, durationNs: 2 ** 40, reason: 'spool full' },
  interrupt: { kind: 'interrupt', timeNs: 7, device: 0, type: 'msix', vector: 2047 },
  reset: { kind: 'reset', timeNs: 8, device: 0 },
  'vm-state': { kind: 'vm-state', timeNs: 9, state: 'running' },
  coverage: {
    kind: 'coverage',
    timeNs: 10,
    statement: {
      phase: 'end',
      ranges: [
        {
          device: 'gpu',
          region: 'BAR0',
          offset: 0,
          lengthBytes: 2 ** 34,
          state: 'bypassed',
          why: 'info mtree -f: ramd',
        },
      ],
      notes: ['times are those of the poll', ''],
    },
  },
  damage: {
    kind: 'damage',
    timeNs: 11,
    position: { segment: 12, offset: 2 ** 35 },
    reason: 'no such event',
    evidence: '\\x00abc',
  },
  line: { kind: 'line', timeNs: 12, text: 'LSPCI 0000:00:00.0' },
  end: {
    kind: 'end',
    timeNs: 2 ** 53 - 1,
    complete: true,
    counters: {
      reads: 2 ** 40,
      writes: 2,
      lost: 3,
      lossEvents: 4,
      damagedLines: 5,
      otherLines: { vfio_intx_eoi: 9, ['__proto__']: 1, '': 2 },
    },
  },
};

/** The bytes of a capture of `items`. */
export async function captureOf(items: readonly StreamItem[], header = HEADER): Promise<Buffer> {
  const output = new MemoryOutput();
  const sink = new CaptureSink(output);
  await sink.begin(header);
  for (const item of items) await sink.write(item);
  await sink.end();
  return output.bytes();
}

/** All that a capture says, batches as plain rows. */
export async function readCapture(
  chunks: AsyncIterable<Uint8Array>,
): Promise<{ header: RecordingHeader; items: (RecordingEvent | PlainBatch)[] }> {
  const recording = await openCapture(chunks);
  const items = [];
  for await (const item of recording.items()) items.push(isBatch(item) ? plain(item) : item);
  return { header: recording.header, items };
}

/** `bytes`, cut into chunks at the given places. */
export async function* cutAt(
  bytes: Uint8Array,
  ...places: number[]
): AsyncGenerator<Uint8Array, void, undefined> {
  const ends = places.toSorted((a, b) => a - b);
  let start = 0;
  for (const end of [...ends, bytes.length]) {
    yield bytes.subarray(start, end);
    start = end;
  }
}

/** Where the frames of a capture begin, found by their lengths alone; the last is the end. */
export function frameOffsets(capture: Buffer): number[] {
  const offsets = [12];
  for (let at = 12; at < capture.length; offsets.push(at)) at += 8 + capture.readUInt32LE(at);
  return offsets;
}
