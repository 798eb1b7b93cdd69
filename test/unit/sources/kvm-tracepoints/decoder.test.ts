import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  KvmDecoder,
  type KvmDecoderSnapshot,
} from '../../../../src/sources/kvm-tracepoints/decoder.ts';
import { FrameKind, numberFrame } from '../../../../src/sources/kvm-tracepoints/frames.ts';
import { FORMATS, page, round, type Rec } from '../../../support/kvm-pages.ts';

const GPA = 0xfebc_0000;
const ORIGIN = 5_000_000;

function decoder(from?: KvmDecoderSnapshot): KvmDecoder {
  const isRecorded = (address: number) => address >= GPA && address < GPA + 0x1000;
  const options = { formats: FORMATS, baseNs: 0n, originNs: ORIGIN, isRecorded, from };
  const made = new KvmDecoder(options);
  made.vcpuOfThread = new Map([
    [100, 0],
    [101, 1],
  ]);
  return made;
}

/** What comes out, a line each: `W 4 febc0010 2a cpu 0 pc 1234 t 5000010`. */
function drain(of: KvmDecoder): string[] {
  const lines: string[] = [];
  for (let item; (item = of.next()) !== undefined;) {
    if ('kind' in item) {
      if (item.kind === 'loss') lines.push(`loss ${item.count} ${item.reason}`);
      else if (item.kind === 'damage') lines.push(`damage ${item.position.offset} ${item.reason}`);
      else lines.push(item.kind);
      continue;
    }
    for (let i = 0; i < item.length; i++) {
      const hex = (hi = 0, lo = 0) => ((BigInt(hi) << 32n) | BigInt(lo)).toString(16);
      lines.push(
        `${item.op[i] === 1 ? 'W' : 'R'} ${item.width[i]} ${item.offset[i]?.toString(16)} ` +
          `${hex(item.valueHi[i], item.valueLo[i])} cpu ${item.cpu[i]} ` +
          `pc ${hex(item.pcHi[i], item.pcLo[i])} t ${item.timeNs[i]}`,
      );
    }
  }
  return lines;
}

function decode(bytes: Uint8Array): string[] {
  const of = decoder();
  of.feed(bytes);
  const lines = drain(of);
  of.finish();
  return [...lines, ...drain(of)];
}

const at = (t: number, rip: bigint, pid = 100): Rec => ({ is: 'instruction', t, rip, pid });
const write = (t: number, val: bigint, pid = 100, len = 4): Rec => {
  return { is: 'mmio', type: 'write', t, gpa: GPA + 0x10, val, pid, len };
};
const asked = (t: number, pid = 100, len = 4): Rec => {
  return { is: 'mmio', type: 'asked', t, gpa: GPA + 0x20, pid, len };
};
const read = (t: number, val: bigint, pid = 100, len = 4): Rec => {
  return { is: 'mmio', type: 'read', t, gpa: GPA + 0x20, val, pid, len };
};

const TWO_VCPUS = Buffer.concat([
  round(
    [
      [0, page([at(10, 0x1000n), write(11, 1n), at(30, 0x1004n), asked(31)])],
      [1, page([at(12, 0xffff_ffff_c000_2000n, 101), write(13, 0xffff_ffff_ffff_ff80n, 101, 1)])],
    ],
    40,
  ),
  round([[1, page([read(35, 0x2an), write(60, 7n, 999), at(61, 0x3000n)])]], 70),
  round([], 80),
]);
const TWO_VCPUS_LINES = [
  'W 4 febc0010 1 cpu 0 pc 1000 t 5000011',
  'W 1 febc0010 80 cpu 1 pc ffffffffc0002000 t 5000013',
  'R 4 febc0020 2a cpu 0 pc 1004 t 5000035',
];

describe('accesses', () => {
  test('of two vCPUs, in order, with value, PC and time; of other threads none', () => {
    expect(decode(TWO_VCPUS)).toEqual(TWO_VCPUS_LINES);
  });
  test('are the same at every split of the bytes', () => {
    for (let split = 0; split <= TWO_VCPUS.length; split += 13) {
      const of = decoder();
      const lines: string[] = [];
      for (const part of [TWO_VCPUS.subarray(0, split), TWO_VCPUS.subarray(split)]) {
        of.feed(part);
        lines.push(...drain(of));
      }
      expect(lines).toEqual(TWO_VCPUS_LINES);
      expect(of.position).toEqual({ segment: 0, offset: TWO_VCPUS.length });
    }
  });
  test('are the same when another process goes on at any time', () => {
    for (let split = 0; split <= TWO_VCPUS.length; split += 101) {
      const first = decoder();
      first.feed(TWO_VCPUS.subarray(0, split));
      const lines = drain(first);
      const { offset } = first.position;
      const second = decoder(JSON.parse(JSON.stringify(first.snapshot())) as KvmDecoderSnapshot);
      second.beginSegment(0, offset);
      second.feed(TWO_VCPUS.subarray(offset));
      expect([...lines, ...drain(second)]).toEqual(TWO_VCPUS_LINES);
    }
  });
  test('of a string instruction have its PC each', () => {
    const recs = [at(1, 0x50n), write(2, 1n), write(3, 2n), asked(4), read(5, 3n)];
    const lines = decode(round([[0, page(recs)]], 9));
    expect(lines.map((line) => line.split(' pc ')[1]?.split(' ')[0])).toEqual(['50', '50', '50']);
  });
  test('at ports, from the instruction that KVM told of', () => {
    const recs: Rec[] = [
      { is: 'exit', t: 1, reason: 30, rip: 0x77n, info1: 0xc000_0003n },
      { is: 'pio', t: 2, write: true, port: 0xc000, val: 0x1234 },
      { is: 'pio', t: 3, write: false, port: 0xc004, size: 2, val: 0xabcd },
    ];
    expect(decode(round([[0, page(recs)]], 9))).toEqual([
      'W 4 c000 1234 cpu 0 pc 77 t 5000002',
      'R 2 c004 abcd cpu 0 pc 77 t 5000003',
    ]);
  });
});

describe('what is not told', () => {
  test('an overrun stands in its place, and no PC is carried over it', () => {
    const bytes = Buffer.concat([
      round([[0, page([at(10, 0x1000n), write(11, 1n)])]], 20),
      round([[0, page([write(30, 2n)], { lost: 17 })]], 40),
    ]);
    expect(decode(bytes)).toEqual([
      'W 4 febc0010 1 cpu 0 pc 1000 t 5000011',
      "loss -1 the kernel's ring buffer overran: 17 records",
      'W 4 febc0010 2 cpu 0 pc 0 t 5000030',
    ]);
  });
  test('the second half of what is wider than eight bytes', () => {
    const recs = [write(1, 0x1122n, 100, 16), asked(2, 100, 16), read(3, 5n, 100, 8)];
    expect(decode(round([[0, page(recs)]], 9))).toEqual([
      'W 8 febc0010 1122 cpu 0 pc 0 t 5000001',
      'loss 1 the kernel tells the first 8 of 16 bytes (at 0xfebc0010)',
      'R 8 febc0020 5 cpu 0 pc 0 t 5000003',
      'loss 1 the kernel tells the first 8 of 16 bytes (at 0xfebc0020)',
    ]);
  });
  test('what another recorder had read and not written down', () => {
    const one = round([[0, page([write(1, 1n)])]], 5);
    const takenOver = (records: number) => numberFrame(FrameKind.takenOver, records);
    expect(decode(Buffer.concat([one, takenOver(1)]))).toHaveLength(1);
    expect(decode(Buffer.concat([one, takenOver(4)]))[1]).toBe(
      'loss -1 the recorder was killed with 3 records in its hands',
    );
    expect(decode(Buffer.concat([one, takenOver(-1)]))[1]).toContain('was gone');
  });
});

describe('damage', () => {
  test('is told with its place, and what is behind it is read', () => {
    const good = round([[0, page([write(1, 1n)])]], 5);
    const bytes = Buffer.concat([good, Buffer.from('not a frame at all'), good]);
    const [first, damage, last] = decode(bytes);
    expect(damage).toBe(`damage ${good.length} not a frame of the trace`);
    expect(last).toBe(first);
  });
  test('at the end is told, too', () => {
    const bytes = round([[0, page([write(1, 1n)])]], 5);
    expect(decode(bytes.subarray(0, -1))).toEqual(['damage 0 cut off in the middle of a round']);
  });
  test('of whatever kind ends', () => {
    const bytes = fc.uint8Array({ maxLength: 200 });
    const patch = fc.tuple(fc.nat(TWO_VCPUS.length - 1), fc.nat(255));
    const patched = fc.array(patch, { maxLength: 5 }).map((patches) => {
      const copy = Buffer.from(TWO_VCPUS);
      for (const [place, byte] of patches) copy[place] = byte;
      return copy;
    });
    fc.assert(
      fc.property(fc.oneof(bytes, patched), fc.nat(), (input, split) => {
        const half = input.length === 0 ? 0 : split % input.length;
        const of = decoder();
        const parts: string[] = [];
        for (const part of [input.subarray(0, half), input.subarray(half)]) {
          of.feed(part);
          parts.push(...drain(of));
        }
        of.finish();
        parts.push(...drain(of));
        expect(of.position.offset).toBe(input.length);
        const isGarbage = input.length > 0 && !Buffer.from(input).includes('KVMP');
        const damages = parts.filter((text) => text.startsWith('damage'));
        expect(damages.length).toBeGreaterThanOrEqual(isGarbage ? 1 : 0);
      }),
    );
  });
});
