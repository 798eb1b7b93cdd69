import { AccessBatch, NO_CPU, Op, Space } from '../../src/model/access-batch.ts';
import { type Device, NO_BAR } from '../../src/model/device.ts';
import type { RecordingEvent, RecordingHeader } from '../../src/model/events.ts';
import type { StreamItem } from '../../src/model/stream.ts';

/*
 * A made-up recording of a network card that has one of everything: what the outputs' golden files
 * are made from.
 */

export const SAMPLE_HEADER: RecordingHeader = {
  tool: 'mmiobridge 0.1.0',
  source: 'qemu-log',
  startSec: 1_767_225_600,
  startNs: 123_456_000,
  textBaseSec: 0,
  clock: 'qemu',
  qemuVersion: '7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)',
  argv: ['qemu-system-x86_64', '-device', 'vfio-pci,host=0000:01:00.0,id=nic0'],
};

/** The same as if it had been read from a log of the kernel. */
export const KERNEL_HEADER: RecordingHeader = {
  ...SAMPLE_HEADER,
  source: 'mmiotrace',
  clock: 'kernel',
};

export const SAMPLE_DEVICE: Device = {
  id: 0,
  name: 'nic0',
  type: 'vfio-pci',
  qemuId: 'nic0',
  hostAddress: '0000:01:00.0',
  bus: 0,
  devfn: 0x10,
  vendorId: 0x8086,
  deviceId: 0x10d3,
  classCode: 0x020000,
  irq: 11,
  bars: [
    { start: 0xfebc0000, flags: 0, sizeBytes: 0x20000 },
    { start: 0xc000, flags: 1, sizeBytes: 0x20 },
    { start: 0x38_0000_0000, flags: 12, sizeBytes: 0x4000 },
    NO_BAR,
    NO_BAR,
    NO_BAR,
    { start: 0xfeb80000, flags: 0, sizeBytes: 0x40000 },
  ],
  driver: 'e1000e',
};

/** One access; what is left out is a 4-byte read of 0 at the start of region 0 by vCPU 0. */
export interface SampleAccess {
  readonly timeNs?: number;
  readonly op?: number;
  readonly space?: number;
  readonly width?: number;
  readonly region?: number;
  readonly mapId?: number;
  readonly offset?: number;
  readonly value?: bigint;
  readonly cpu?: number;
  readonly pc?: bigint;
}

export function batchOf(...accesses: readonly SampleAccess[]): AccessBatch {
  const batch = new AccessBatch(Math.max(1, accesses.length));
  for (const access of accesses) {
    const row = batch.length++;
    const { value = 0n, pc = 0n } = access;
    batch.timeNs[row] = access.timeNs ?? 0;
    batch.op[row] = access.op ?? Op.read;
    batch.space[row] = access.space ?? Space.mmio;
    batch.width[row] = access.width ?? 4;
    batch.region[row] = access.region ?? 0;
    batch.mapId[row] = access.mapId ?? 1;
    batch.offset[row] = access.offset ?? 0;
    batch.valueLo[row] = Number(value & 0xffffffffn);
    batch.valueHi[row] = Number(value >> 32n);
    batch.cpu[row] = access.cpu ?? 0;
    batch.pcLo[row] = Number(pc & 0xffffffffn);
    batch.pcHi[row] = Number(pc >> 32n);
  }
  return batch;
}

const US = 1000;
const MS = 1000 * US;

export const SAMPLE_EVENTS = {
  coverage: {
    kind: 'coverage',
    timeNs: 0,
    statement: {
      phase: 'head',
      ranges: [
        {
          device: 'nic0',
          region: 'BAR0',
          offset: 0,
          lengthBytes: 0x20000,
          state: 'trapped',
          why: 'x-no-mmap=on',
        },
        {
          device: 'nic0',
          region: 'BAR2',
          offset: 0x1000,
          lengthBytes: 0x3000,
          state: 'bypassed',
          why: 'mtree shows a RAM region:  accesses get lost',
        },
      ],
      notes: ['QEMU prints no vCPU'],
    },
  },
  device: { kind: 'device', timeNs: 1 * MS, device: SAMPLE_DEVICE },
  bar0: {
    kind: 'region',
    timeNs: 1 * MS,
    region: { id: 0, device: 0, kind: 'bar', bar: 0, name: 'BAR0', sizeBytes: 0x20000 },
  },
  bar1: {
    kind: 'region',
    timeNs: 1 * MS,
    region: { id: 1, device: 0, kind: 'bar', bar: 1, name: 'BAR1', sizeBytes: 0x20 },
  },
  config: {
    kind: 'region',
    timeNs: 1 * MS,
    region: { id: 2, device: 0, kind: 'config', bar: -1, name: 'config', sizeBytes: 0x1000 },
  },
  map: {
    kind: 'map',
    timeNs: 2 * MS,
    mapping: {
      mapId: 1,
      region: 0,
      regionOffset: 0,
      gpa: 0xfebc0000,
      lengthBytes: 0x20000,
      virt: '0x0',
    },
  },
  mapPort: {
    kind: 'map',
    timeNs: 2 * MS,
    mapping: { mapId: 2, region: 1, regionOffset: 0, gpa: 0xc000, lengthBytes: 0x20, virt: '0x0' },
  },
  notice: {
    kind: 'notice',
    timeNs: 2 * MS,
    text: 'nic0 BAR1: no mapping known, addresses are offsets within the BAR',
  },
  mark: { kind: 'mark', timeNs: 3 * MS, text: 'link  up\tafter plugging the cable – 1 Gbit/s ' },
  interrupt: { kind: 'interrupt', timeNs: 4 * MS, device: 0, type: 'msix', vector: 3 },
  loss: {
    kind: 'loss',
    timeNs: 5 * MS,
    count: 12,
    durationNs: 3_200 * US,
    reason: 'spool is full, --overflow=drop',
  },
  lossOfUnknown: {
    kind: 'loss',
    timeNs: 6 * MS,
    count: -1,
    durationNs: 0,
    reason: 'bytes of the log are not there',
  },
  failed: {
    kind: 'failed',
    timeNs: 6 * MS,
    write: true,
    region: 0,
    offset: 0x10,
    width: 4,
    value: '0x1',
    reason: 'Input/output error',
  },
  damage: {
    kind: 'damage',
    timeNs: 7 * MS,
    position: { segment: 2, offset: 4711 },
    reason: 'not a trace line',
    evidence: 'vfio_region_wri\\x00\\x00Lost',
  },
  reset: { kind: 'reset', timeNs: 8 * MS, device: 0 },
  vmState: { kind: 'vm-state', timeNs: 9 * MS, state: 'paused' },
  line: { kind: 'line', timeNs: 10 * MS, text: 'LSPCI 00:02.0 Ethernet controller' },
  unmap: { kind: 'unmap', timeNs: 11 * MS, mapId: 1 },
  end: {
    kind: 'end',
    timeNs: 12 * MS,
    complete: false,
    counters: {
      reads: 5,
      writes: 3,
      lost: 12,
      lossEvents: 2,
      damagedLines: 1,
      otherLines: { pci_cfg_read: 7 },
    },
  },
} as const satisfies Record<string, RecordingEvent>;

export const SAMPLE_ITEMS: readonly StreamItem[] = [
  SAMPLE_EVENTS.coverage,
  SAMPLE_EVENTS.device,
  SAMPLE_EVENTS.bar0,
  SAMPLE_EVENTS.bar1,
  SAMPLE_EVENTS.config,
  batchOf({
    timeNs: 1500 * US,
    space: Space.config,
    region: 2,
    mapId: 0,
    offset: 4,
    width: 2,
    value: 0x406n,
  }),
  SAMPLE_EVENTS.map,
  SAMPLE_EVENTS.mapPort,
  batchOf(
    { timeNs: 2001 * US, offset: 8, value: 0x80080783n },
    { timeNs: 2002 * US, op: Op.write, offset: 0x400, value: 1n, cpu: 1 },
    { timeNs: 2_003_999, op: Op.write, width: 8, offset: 0x3810, value: 0xfedc_ba98_7654_3210n },
    { timeNs: 2004 * US, width: 1, offset: 0x5b58, value: 0xffn, pc: 0xffff_ffff_8164_2a10n },
    { timeNs: 2005 * US, op: Op.unknown, width: 0, offset: 0x10, value: 0x0f_01_f9n, cpu: NO_CPU },
    {
      timeNs: 2006 * US,
      op: Op.write,
      space: Space.pio,
      region: 1,
      mapId: 2,
      offset: 0x10,
      value: 1n,
    },
    { timeNs: 2007 * US, mapId: 0, offset: 0x18 },
  ),
  SAMPLE_EVENTS.notice,
  SAMPLE_EVENTS.mark,
  SAMPLE_EVENTS.interrupt,
  SAMPLE_EVENTS.loss,
  SAMPLE_EVENTS.lossOfUnknown,
  SAMPLE_EVENTS.failed,
  SAMPLE_EVENTS.damage,
  SAMPLE_EVENTS.reset,
  SAMPLE_EVENTS.vmState,
  SAMPLE_EVENTS.line,
  SAMPLE_EVENTS.unmap,
  SAMPLE_EVENTS.end,
];
