import { describe, expect, test } from 'vitest';
import { PluginDecoder } from '../../../../src/sources/plugin/decoder.ts';
import { goneFrame, logFrame } from '../../../../src/sources/plugin/frames.ts';
import { WireType, message } from '../../../../src/sources/plugin/wire.ts';
import { RawBatch } from '../../../../src/sources/raw-batch.ts';
import { recordsMessage, type PluginRecord } from '../../../support/plugin-records.ts';

const START = { sec: 1_800_000_000, ns: 5 };
const START_NS = 1_800_000_000_000_000_005n;

/** What a decoder makes of bytes, in chunks of a size: rows and events, as words. */
function decode(
  bytes: Buffer,
  chunk = bytes.length,
  decoder = new PluginDecoder({ start: START }),
) {
  decoder.beginSegment(1, 0);
  const said: string[] = [];
  const drain = () => {
    for (let item; (item = decoder.next()) !== undefined;) {
      if (item instanceof RawBatch) {
        for (let row = 0; row < item.length; row++) {
          const target = decoder.targets[item.target[row] ?? 0]?.kind;
          said.push(`${item.cpu[row]} ${item.valueLo[row]} at ${item.timeNs[row]} ${target}`);
        }
      } else if (item.kind === 'loss') said.push(`lost ${item.count} at ${item.timeNs}`);
      else said.push(item.kind);
    }
  };
  for (let at = 0; at < bytes.length; at += chunk) {
    decoder.feed(bytes.subarray(at, at + chunk));
    drain();
  }
  decoder.finish();
  drain();
  return { said, decoder };
}

const access = (vcpu: number, number: number, ns = number): PluginRecord => ({
  timeNs: START_NS + BigInt(ns),
  vcpu,
  number,
  value: BigInt(number),
});
const MAPPING = Buffer.from(
  '7@1800000000.000002:pci_update_mappings_add edu 00:04.0 0,0xe1000000+0x100000\n',
);
const numbers = (...of: number[]) => {
  const body = Buffer.alloc(4 * of.length);
  for (const [index, number] of of.entries()) body.writeUInt32LE(number, 4 * index);
  return message(WireType.farewell, body);
};

describe('the decoder of the plugin', () => {
  const whole = Buffer.concat([
    recordsMessage([access(0, 0), access(0, 1)]),
    logFrame({ segment: 1, offset: 78 }, MAPPING),
    recordsMessage([access(1, 0, 4000), access(0, 2, 5000)]),
    numbers(3, 1),
  ]);
  const expected = [
    '0 0 at 0 guest-address',
    '0 1 at 1 guest-address',
    'mapping',
    '1 0 at 4000 guest-address',
    '0 2 at 5000 guest-address',
  ];

  test.each([1, 7, 48, 64, whole.length])('reads the same in chunks of %i bytes', (chunk) => {
    const { said, decoder } = decode(whole, chunk);
    expect(said).toEqual(expected);
    expect(decoder.position).toEqual({ segment: 1, offset: whole.length });
    const lines = { stamped: 1, unstamped: 0, others: [] };
    expect(decoder.snapshot()).toEqual({ numbers: [3, 1], log: { segment: 1, offset: 78 }, lines });
  });

  test('counts what is missing of each vCPU, where it is missing', () => {
    const bytes = Buffer.concat([
      recordsMessage([access(0, 0), access(0, 5), access(1, 2), access(0, 6)]),
      numbers(9, 3, 1),
    ]);
    expect(decode(bytes).said).toEqual([
      '0 0 at 0 guest-address',
      'lost 4 at 5',
      '0 5 at 5 guest-address',
      'lost 2 at 2',
      '1 2 at 2 guest-address',
      '0 6 at 6 guest-address',
      'lost 2 at 6',
      'lost 1 at 6',
    ]);
  });

  test('goes on from a snapshot, and counts what the recorder before had in its hands', () => {
    const first = decode(recordsMessage([access(0, 0), access(0, 1)])).decoder;
    const next = new PluginDecoder({ start: START, from: first.snapshot() });
    expect(decode(recordsMessage([access(0, 10)]), 1000, next).said).toEqual([
      'lost 8 at 10',
      '0 10 at 10 guest-address',
    ]);
  });

  test('says that nobody knows what is missing where the plugin said no farewell', () => {
    const bytes = Buffer.concat([recordsMessage([access(0, 0, 7)]), goneFrame()]);
    expect(decode(bytes).said).toEqual(['0 0 at 7 guest-address', 'lost -1 at 7']);
  });

  test('hands out more rows than a batch has, in order', () => {
    const many = Array.from({ length: 10_000 }, (_, i) => access(0, i));
    const { said } = decode(recordsMessage(many), 100_000);
    expect(said).toHaveLength(10_000);
    expect(said.at(-1)).toBe('0 9999 at 9999 guest-address');
  });

  test('takes configuration space from the log, and accesses from the plugin alone', () => {
    const stamp = '7@1800000000.000001:';
    const lines = Buffer.from(
      `${stamp}vfio_pci_read_config  (0000:00:10.0, @0x4, len=0x2) 0x103\n` +
        `${stamp}vfio_region_read  (0000:00:10.0:region0+0xf00, 4) = 0x28\n` +
        `${stamp}memory_region_ops_write cpu 0 mr 0x55 addr 0xe1000004 value 0x4 size 4 name 'edu'\n`,
    );
    const { said } = decode(logFrame({ segment: 1, offset: 1 }, lines));
    expect(said).toEqual(['-1 259 at 995 vfio-config']);
  });
});
