import { NO_LINES } from '../../../../src/sources/spool-decoder.ts';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { PluginDecoder } from '../../../../src/sources/plugin/decoder.ts';
import {
  HEAD_BYTES,
  WireType,
  ranges,
  readHello,
  refused,
  welcome,
} from '../../../../src/sources/plugin/wire.ts';
import { RawBatch } from '../../../../src/sources/raw-batch.ts';

// As `make -C qemu-scripts/plugin golden` prints it: one message of each type, in wire.h's own bytes.
const golden = readFileSync(
  fileURLToPath(new URL('../../../golden/plugin/wire.bin', import.meta.url)),
);
const messages = new Map<number, Buffer>();
for (let at = 0; at < golden.length;) {
  const end = at + HEAD_BYTES + golden.readUInt32LE(at + 4);
  messages.set(golden.readUInt32LE(at), golden.subarray(at, end));
  at = end;
}
const bytesOf = (type: number): Buffer => messages.get(type) ?? Buffer.alloc(0);

test('there is one of each type', () => {
  expect([...messages.keys()]).toEqual(Object.values(WireType));
});

test('the hello is read as it was written', () => {
  expect(readHello(bytesOf(WireType.hello).subarray(HEAD_BYTES))).toEqual({
    version: 1,
    recordBytes: 48,
    target: 'x86_64',
    pid: 4242,
    maxVcpus: 3,
  });
});

test('what the recorder says has the same bytes', () => {
  expect(welcome('count')).toEqual(bytesOf(WireType.welcome));
  expect(refused('the recorder wants another')).toEqual(bytesOf(WireType.refused));
  const list = [
    { start: 0xe100_0000n, last: 0xe10f_ffffn },
    { start: 0x3800_0000_0000n, last: 2n ** 64n - 1n },
  ];
  expect(ranges(5, true, list)).toEqual(bytesOf(WireType.ranges));
});

test('records are read field for field; 16 bytes are two of 8', () => {
  const decoder = new PluginDecoder({
    start: { sec: 1_795_392_285, ns: 924_324_000 },
    from: { numbers: [0, 7, 0xffff_ffff], log: null, lines: NO_LINES },
  });
  decoder.beginSegment(1, 0);
  decoder.feed(bytesOf(WireType.records));
  const batch = decoder.next();
  if (!(batch instanceof RawBatch)) throw new Error(`no batch: ${JSON.stringify(batch)}`);
  const rows = Array.from({ length: batch.length }, (_, row) => ({
    timeNs: batch.timeNs[row],
    op: batch.op[row],
    width: batch.width[row],
    offset: batch.offset[row],
    value: [batch.valueLo[row], batch.valueHi[row]],
    cpu: batch.cpu[row],
    pc: [batch.pcLo[row], batch.pcHi[row]],
  }));
  const wide = { timeNs: 918, op: 0, width: 8, cpu: 2, pc: [0x400123, 0] };
  expect(rows).toEqual([
    {
      timeNs: 17,
      op: 1,
      width: 4,
      offset: 0xfeb80f00,
      value: [0x28, 0],
      cpu: 0,
      pc: [0xc02183ba, 0xffffffff],
    },
    { ...wide, offset: 0x380000000010, value: [0x55667788, 0x11223344] },
    { ...wide, offset: 0x380000000018, value: [0xddeeff00, 0x99aabbcc] },
    {
      timeNs: 1000,
      op: 1,
      width: 1,
      offset: 0xe1000fff,
      value: [0x80, 0],
      cpu: 1,
      pc: [0x10001, 0],
    },
  ]);
  expect(decoder.snapshot().numbers).toEqual([1, 8, 0]);
  // And it says goodbye with just these numbers: nothing is missing.
  decoder.feed(bytesOf(WireType.farewell));
  expect(decoder.next()).toBeUndefined();
});
