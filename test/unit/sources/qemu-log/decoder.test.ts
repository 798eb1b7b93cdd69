import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { MAX_LINE_BYTES, QemuLogDecoder } from '../../../../src/sources/qemu-log/decoder.ts';
import { decodeFast, decodePlainly, type PlainItem } from '../../../support/plain-decoder.ts';

// Lines as QEMU 7.2.22, 10.0.2 and 11.1.3 printed them.
const THREAD = '6103@1795392285.924324:';
const ISO = '2026-11-23T00:14:37.086832Z ';
const VFIO_WRITE = 'vfio_region_write  (0000:00:10.0:region0+0xf00, 0x28, 4)';
const VFIO_READ = 'vfio_region_read  (0000:00:10.0:region0+0xf00, 4) = 0x28';
const OPS_WRITE =
  "memory_region_ops_write cpu 0 mr 0x560bc0937de0 addr 0xfeb80020 value 0x4 size 4 name 'e1000e-mmio'";

const decode = (text: string): PlainItem[] => decodeFast([Buffer.from(text, 'latin1')]);
const one = (line: string): PlainItem => decode(`${line}\n`)[0] ?? {};

describe('prefixes', () => {
  test('thread and time of 7.2 and 10.0', () => {
    const second = `6104@1795392286.000001:${VFIO_READ}`;
    const [a, b] = decode(`${THREAD}${VFIO_WRITE}\n${second}\n`);
    expect(a).toMatchObject({ timeNs: 0, thread: 6103 });
    expect(b).toMatchObject({ timeNs: 75_677_000, thread: 6104 });
  });
  test('ISO time of 11.1', () => {
    const later = `2026-11-23T00:14:38.000000Z ${VFIO_READ}`;
    const [a, b] = decode(`${ISO}${VFIO_WRITE}\n${later}\n`);
    expect(a).toMatchObject({ timeNs: 0, thread: 0 });
    expect(b).toMatchObject({ timeNs: 913_168_000 });
  });
  test('ISO time of 11.1 at a full second, where it has no fraction', () => {
    const items = decode(
      `${ISO}${VFIO_WRITE}\n2026-11-23T00:14:38Z ${VFIO_READ}\n2026-11-23T00:14:38.000001Z ${VFIO_READ}\n`,
    );
    expect(items.map((item) => item['timeNs'])).toEqual([0, 913_168_000, 913_169_000]);
  });
  test('none', () => {
    expect(one(VFIO_WRITE)).toMatchObject({ kind: 'access', timeNs: null, thread: 0 });
  });
  test('session time counts from the start that is given', () => {
    const decoder = new QemuLogDecoder({ start: { sec: 1_795_392_285, ns: 500 } });
    decoder.feed(Buffer.from(`${THREAD}${VFIO_WRITE}\n`));
    const batch = decoder.next();
    expect(batch !== undefined && 'timeNs' in batch && batch.timeNs).toHaveProperty(
      '0',
      924_323_500,
    );
  });
  test.each(['6103@1795392285.92432', '6103@', '99', '2026-11-23T00:14:37.0868Z x'])(
    'half a prefix is damage: %s',
    (line) => {
      expect(one(line)).toMatchObject({ kind: 'damage', reason: 'a time stamp that is not whole' });
    },
  );
});

describe('accesses', () => {
  test('vfio regions', () => {
    const target = { kind: 'vfio-region', device: '0000:00:10.0', region: 0 };
    const common = { target, address: 0xf00, valueLo: 0x28, valueHi: 0, width: 4, cpu: -1 };
    expect(one(THREAD + VFIO_WRITE)).toMatchObject({ write: true, ...common });
    expect(one(THREAD + VFIO_READ)).toMatchObject({ write: false, ...common });
  });
  test.each([
    'vfio-user:/tmp/x.sock',
    'vfio-user:/tmp/a:region1+0x4/b.sock',
    'a (b), c',
    '/dev/iommu/:regio:region',
  ])('device names are split at the last :region: %s', (device) => {
    const line = `vfio_region_read  (${device}:region12+0x0, 8) = 0xffffffff00000001`;
    // The first is read by the grammar, the second by the fast path.
    for (const item of decode(`${line}\n${line}\n`)) {
      expect(item).toMatchObject({
        target: { kind: 'vfio-region', device, region: 12 },
        valueHi: 0xffffffff,
        valueLo: 1,
        width: 8,
      });
    }
  });
  test('memory_region_ops, with the vCPU', () => {
    expect(one(THREAD + OPS_WRITE)).toMatchObject({
      target: { kind: 'memory-region', pointer: '560bc0937de0', name: 'e1000e-mmio' },
      address: 0xfeb80020,
      write: true,
      cpu: 0,
    });
    expect(one(OPS_WRITE.replace('cpu 0', 'cpu -1'))).toMatchObject({ cpu: -1 });
    expect(one(OPS_WRITE.replace('cpu 0', 'cpu 255'))).toMatchObject({ cpu: 255 });
  });
  test('a value that a model sign-extended is masked to the width', () => {
    const line = OPS_WRITE.replace('0x4 size 4', '0xffffffffffffff85 size 1');
    for (const item of decode(`${line}\n${line}\n`)) {
      expect(item).toMatchObject({ valueLo: 0x85, valueHi: 0, width: 1 });
    }
  });
  test('a pointer that QEMU uses again for another region', () => {
    const other = OPS_WRITE.replace('e1000e-mmio', 'nvme');
    const names = decode([OPS_WRITE, other, other, OPS_WRITE, OPS_WRITE, ''].join('\n')).map(
      (item) => (item['target'] as { name: string }).name,
    );
    expect(names).toEqual(['e1000e-mmio', 'nvme', 'nvme', 'e1000e-mmio', 'e1000e-mmio']);
  });
  test('configuration space and option ROM', () => {
    expect(one('vfio_pci_read_config  (0000:00:10.0, @0x4, len=0x2) 0x103')).toMatchObject({
      target: { kind: 'vfio-config', device: '0000:00:10.0' },
      write: false,
      address: 4,
      valueLo: 0x103,
      width: 2,
    });
    expect(one('vfio_pci_write_config  (0000:00:10.0, @0x4, 0x100, len=0x2)')).toMatchObject({
      write: true,
      valueLo: 0x100,
      width: 2,
    });
    expect(one('vfio_rom_read  (0000:00:10.0, 0x10, 0x1) = 0x55')).toMatchObject({
      target: { kind: 'vfio-rom', device: '0000:00:10.0' },
      address: 0x10,
      valueLo: 0x55,
    });
  });
  test.each([
    ['a width that is none', VFIO_READ.replace(', 4)', ', 3)')],
    ['an address over 2^53', VFIO_READ.replace('0xf00', '0x20000000000000')],
    ['17 digits', VFIO_READ.replace('0x28', '0x12345678901234567')],
    ['upper-case digits', VFIO_READ.replace('0x28', '0x2F')],
    ['something behind it', `${VFIO_WRITE} `],
    ['an event cut short', 'vfio_region_write'],
  ])('%s is damage, with its offset, and the lines around it are read', (_, line) => {
    const [before, damage, after] = decode(`${VFIO_READ}\n${line}\n${VFIO_READ}\n`);
    expect(before).toMatchObject({ kind: 'access' });
    expect(damage).toMatchObject({ kind: 'damage', offset: VFIO_READ.length + 1 });
    expect(damage?.['evidence']).toContain('vfio_region_');
    expect(after).toMatchObject({ kind: 'access' });
  });
});

describe('other lines of ours', () => {
  test('mappings', () => {
    const line = 'pci_update_mappings_add vfio-pci 02:1f.7 0,0xfeb80000+0x20000';
    const mapping = { type: 'vfio-pci', bus: 2, devfn: 0xff, bar: 0, gpa: 0xfeb80000 };
    expect(one(line)).toMatchObject({ kind: 'mapping', added: true, ...mapping });
    expect(one(line.replace('add', 'del'))).toMatchObject({ added: false, sizeBytes: 0x20000 });
  });
  test('region set-up, interrupts, reset', () => {
    const setup =
      'vfio_region_setup Device 0000:00:10.0, region 0 "0000:00:10.0 BAR 0", flags: 0x7, offset: 0x0, size: 0x20000';
    const device = '0000:00:10.0';
    expect(one(setup)).toMatchObject({ kind: 'region-setup', device, sizeBytes: 0x20000 });
    expect(one(`vfio_msi_interrupt  (${device}) vector 3 0xfee00000/0x4041`)).toMatchObject({
      kind: 'interrupt',
      type: 'msi',
      vector: 3,
    });
    expect(one(`vfio_intx_interrupt  (${device}) Pin B`)).toMatchObject({
      kind: 'interrupt',
      type: 'intx',
      vector: 1,
    });
    expect(one('pci_cfg_write e1000e 01:1f.7 @0x3c <- 0xab')).toMatchObject({
      kind: 'config-write',
      type: 'e1000e',
      bus: 1,
      devfn: 0xff,
      offset: 0x3c,
      value: 0xab,
    });
    expect(one(`vfio_pci_reset  (${device})`)).toMatchObject({ kind: 'reset', device });
  });
});

describe("a pattern of the user's", () => {
  const lines = `${THREAD}${VFIO_WRITE}\n`.repeat(1000);
  test('for other events slows down none of ours', () => {
    const alsoOther = vi.fn<(name: string) => boolean>((name) => name.startsWith('nvme_'));
    const decoder = new QemuLogDecoder({ alsoOther, onOtherLine: () => undefined });
    const asked = alsoOther.mock.calls.length;
    decoder.feed(Buffer.from(lines));
    expect(decoder.next()).toHaveProperty('length', 1000);
    // The first names its target; all others are read without a look at what the user wants.
    expect(alsoOther.mock.calls.length - asked).toBeLessThanOrEqual(1);
  });
  test('for ours gets each line, too', () => {
    const seen: string[] = [];
    const onOtherLine = (line: Uint8Array) => void seen.push(Buffer.from(line).toString());
    const alsoOther = (name: string) => name === 'vfio_region_write';
    const decoder = new QemuLogDecoder({ alsoOther, onOtherLine });
    decoder.feed(Buffer.from(lines));
    expect(decoder.next()).toHaveProperty('length', 1000);
    expect(seen.join('')).toBe(lines);
  });
});

describe('lines that are not ours', () => {
  test('are counted by name, and stop nothing', () => {
    const decoder = new QemuLogDecoder();
    const lines = ['kvm_run_exit cpu_index 0', 'kvm_run_exit cpu_index 1', 'IN: main', ''];
    decoder.feed(Buffer.from(`${lines.join('\n')}${THREAD}${VFIO_READ}\n`));
    expect(decoder.next()).toHaveProperty('length', 1);
    expect([...decoder.otherLines]).toEqual([
      ['kvm_run_exit', 2],
      ['(text)', 1],
    ]);
  });
  test('are handed on whole', () => {
    const seen: string[] = [];
    const onOtherLine = (line: Uint8Array) => void seen.push(Buffer.from(line).toString());
    const decoder = new QemuLogDecoder({ onOtherLine, alsoOther: (n) => n === 'vfio_region_read' });
    decoder.feed(Buffer.from(`${THREAD}nvme_x 1\n${VFIO_WRITE}\n${VFIO_READ}\n`));
    expect(decoder.next()).toHaveProperty('length', 2);
    expect(seen).toEqual([`${THREAD}nvme_x 1\n`, `${VFIO_READ}\n`]);
  });
  test('names without number are not kept without end', () => {
    const decoder = new QemuLogDecoder();
    const lines = Array.from({ length: 5000 }, (_, i) => `event_${i} x\n`);
    decoder.feed(Buffer.from(lines.join('')));
    expect(decoder.next()).toBeUndefined();
    expect(decoder.otherLines.size).toBeLessThan(1100);
    expect([...decoder.otherLines.values()].reduce((a, b) => a + b)).toBe(5000);
  });
});

test('the position is where to go on: no access twice, none missing', () => {
  const log = Buffer.from(`${VFIO_WRITE}\n${VFIO_READ}\n`.repeat(20));
  const decoder = new QemuLogDecoder({ batchCapacity: 3 });
  decoder.beginSegment(7, 0);
  decoder.feed(log);
  let rows = 0;
  for (let item; (item = decoder.next()) !== undefined;) {
    if ('kind' in item) continue;
    rows += item.length;
    const at = item.position?.offset ?? -1;
    expect(item.position?.segment).toBe(7);
    expect(decodeFast([log.subarray(at)])).toHaveLength(40 - rows);
  }
  expect(rows).toBe(40);
});

describe('accesses that failed', () => {
  const NAME = 'qemu-system-x86_64: ';
  const READ = 'vfio_region_read(0000:09:00.0:region0+0x44, 4) failed: Input/output error';
  const WRITE = 'vfio_region_write(0000:09:00.0:region0+0x4, 0x2,4) failed: Input/output error';
  const target = { kind: 'vfio-region', device: '0000:09:00.0', region: 0 };

  test('a read is there, with what the guest saw; a write has its own line', () => {
    expect(decode(`${ISO}${NAME}${READ}\n${NAME}${WRITE}\n`)).toMatchObject([
      { kind: 'access', write: false, target, address: 0x44, width: 4, valueLo: 0xffffffff },
      { kind: 'failed', write: false, target, address: 0x44, reason: 'Input/output error' },
      { kind: 'failed', write: true, target, address: 4, width: 4, valueLo: 2 },
    ]);
  });
  test('configuration space: the guest is given the number of the error', () => {
    const line = 'vfio_pci_read_config(0000:09:00.0, 0x10, 0x2) failed: Input/output error';
    expect(decode(`${NAME}${line}\n`)).toMatchObject([
      { kind: 'access', target: { kind: 'vfio-config' }, address: 0x10, width: 2, valueLo: 0xfffb },
      { kind: 'failed', write: false, width: 2 },
    ]);
    expect(one(line.replace('Input/output error', 'Eingabefehler'))).toMatchObject({
      kind: 'damage',
      reason: 'a failed read of which it is not known what the guest saw',
    });
    expect(one('vfio_pci_write_config(a, 0x10, 0x1, 0x4) failed: No such device')).toMatchObject({
      kind: 'failed',
      write: true,
      target: { kind: 'vfio-config', device: 'a' },
    });
  });
  test('of standard error stand where the log comes to their time, in any chunks', () => {
    const at = (usec: number) => `7@1795392285.${String(usec).padStart(6, '0')}:`;
    const log = Buffer.from([10, 20, 30, 40].map((us) => `${at(us)}${VFIO_WRITE}\n`).join(''));
    const iso = (usec: number) =>
      `${new Date(1_795_392_285_000).toISOString().slice(0, 19)}.${String(usec).padStart(6, '0')}Z `;
    const lines = [5, 20, 25, 26, 50].map((us, index) => ({
      timeNs: us * 1000,
      text: `${iso(us)}${NAME}${READ}`,
      at: index,
    }));
    for (let cut = 0; cut <= log.length; cut++) {
      const decoder = new QemuLogDecoder({
        start: { sec: 1_795_392_285, ns: 0 },
        batchCapacity: 2,
      });
      const times: number[] = [];
      const kinds = new Set<string>();
      const drain = () => {
        for (let item; (item = decoder.next()) !== undefined;) {
          if (!('kind' in item)) times.push(...item.timeNs.subarray(0, item.length));
          else kinds.add(item.kind);
        }
      };
      decoder.interject(lines);
      for (const chunk of [log.subarray(0, cut), log.subarray(cut)]) {
        decoder.feed(chunk);
        drain();
      }
      expect(decoder.interjections).toHaveLength(1);
      decoder.interjectionsDue(1);
      drain();
      expect(times.map((ns) => ns / 1000)).toEqual([5, 10, 20, 20, 25, 26, 30, 40, 50]);
      expect([...kinds]).toEqual(['failed']);
    }
  });
});

describe('any bytes at all', () => {
  const line = fc.oneof(
    fc.constantFrom(VFIO_WRITE, VFIO_READ, OPS_WRITE, 'kvm_x 1', 'text', ''),
    fc.constantFrom(
      'q: vfio_region_read(a:region0+0x44, 4) failed: Input/output error',
      'q: vfio_region_write(a:region0+0x44, 0x1, 9) failed: x',
    ),
    fc
      .tuple(fc.constantFrom('a:b', '0000:00:10.0'), fc.nat(9), fc.nat(), fc.bigInt(0n, 2n ** 65n))
      .map(([d, r, o, v]) => `vfio_region_write  (${d}:region${r}+0x${o}, 0x${v.toString(16)}, 4)`),
    fc
      .tuple(fc.integer({ min: -2, max: 9 }), fc.bigInt(0n, 2n ** 64n - 1n), fc.nat(9), fc.string())
      .map(
        ([c, v, s, n]) =>
          `memory_region_ops_read cpu ${c} mr 0x7f${s} addr 0x1${s} value 0x${v.toString(16)} size ${s} name '${n}'`,
      ),
  );
  const prefix = fc.oneof(
    fc.constantFrom('', THREAD, ISO, '2026-11-23T00:14:37Z ', '6104@1795392285.000001:'),
    fc.nat(999_999).map((us) => `6103@1795392285.${String(us).padStart(6, '0')}:`),
  );
  const log = fc
    .array(fc.tuple(prefix, line), { maxLength: 30 })
    .map((lines) => Buffer.from(lines.map(([p, l]) => `${p}${l}\n`).join(''), 'latin1'));
  const damage = (bytes: Buffer, flips: readonly (readonly [number, number])[]) => {
    const copy = Buffer.from(bytes);
    for (const [at, bit] of flips) {
      const index = at % Math.max(1, copy.length);
      if (copy.length > 0) copy[index] = (copy[index] ?? 0) ^ (1 << bit);
    }
    return copy;
  };
  const flips = fc.array(fc.tuple(fc.nat(), fc.nat(7)), { maxLength: 6 });
  const chunked = (bytes: Buffer, cuts: readonly number[]) => {
    const at = cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b);
    return [0, ...at].map((from, i) => bytes.subarray(from, at[i] ?? bytes.length));
  };

  test('the fast decoder reads what the plain one reads, damaged or not, in any chunks', () => {
    fc.assert(
      fc.property(log, flips, fc.array(fc.nat(), { maxLength: 8 }), (bytes, flipped, cuts) => {
        const hurt = damage(bytes, flipped);
        expect(decodeFast(chunked(hurt, cuts))).toEqual(decodePlainly(hurt));
      }),
      { numRuns: 3000 },
    );
  });
  test('every split of the chunks', () => {
    const bytes = Buffer.from(
      [THREAD + VFIO_WRITE, ISO + VFIO_READ, OPS_WRITE, OPS_WRITE, 'kvm_x', THREAD, ''].join('\n'),
    );
    const whole = decodePlainly(bytes);
    expect(whole).toHaveLength(4);
    for (let at = 0; at <= bytes.length; at++) {
      expect(decodeFast([bytes.subarray(0, at), bytes.subarray(at)])).toEqual(whole);
    }
    expect(decodeFast(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(whole);
  });
  test('random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
        expect(decodeFast([bytes])).toEqual(decodePlainly(bytes));
      }),
    );
  });
  test('a line without end is one damage, takes no memory, and the next line is read', () => {
    const decoder = new QemuLogDecoder();
    const endless = Buffer.alloc(1 << 20, 'vfio_region_read  (0000:00:10.0:region0+0xf00 ');
    const before = process.memoryUsage().arrayBuffers;
    const kinds: string[] = [];
    const drain = () => {
      for (let item; (item = decoder.next()) !== undefined;) {
        kinds.push('kind' in item ? item.kind : `${item.length} accesses`);
      }
    };
    for (let i = 0; i < 200; i++) {
      decoder.feed(endless);
      drain();
    }
    decoder.feed(Buffer.from(`\n${VFIO_READ}\n`));
    drain();
    expect(kinds).toEqual(['damage', '1 accesses']);
    expect(decoder.position.offset).toBe(200 * (1 << 20) + VFIO_READ.length + 2);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * MAX_LINE_BYTES);
  });
});
