import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { coverageOf } from '../../../src/machine/coverage.ts';
import { flatView, type AddressWindow, type FlatRange } from '../../../src/machine/flat-view.ts';
import { parseTree } from '../../../src/machine/mtree-tree.ts';
import { parseFlatView } from '../../support/flat-view.ts';

function golden(name: string): string {
  return readFileSync(new URL(`../../golden/mtree/${name}.txt`, import.meta.url), 'utf8');
}

/** QEMU's gpa2hva, of a machine whose view is known. */
function probeOf(ranges: readonly FlatRange[]) {
  return (address: number) => {
    const found = ranges.find(
      ({ space, start, end }) => space === 'memory' && start <= address && address <= end,
    );
    if (found === undefined) return Promise.resolve('nothing' as const);
    return Promise.resolve(found.kind === 'i/o' ? ('i/o' as const) : ('ram' as const));
  };
}

interface BarAt {
  readonly space: AddressWindow['space'];
  readonly start: number;
  readonly sizeBytes: number;
}

const memory = (start: number, sizeBytes: number): BarAt => ({ space: 'memory', start, sizeBytes });
const io = (start: number, sizeBytes: number): BarAt => ({ space: 'io', start, sizeBytes });

describe('what the guest reaches, made of the tree,', () => {
  test.each<[string, readonly BarAt[]]>([
    [
      'e1000e',
      [
        memory(0xe0000000, 0x20000),
        memory(0xe0020000, 0x20000),
        io(0xc000, 0x20),
        memory(0xe0040000, 0x4000),
      ],
    ],
    ['rtl8139', [io(0xc000, 0x100), memory(0xe0000000, 0x100)]],
    [
      'rtl8139-behind-bridge',
      [io(0xd000, 0x100), memory(0xe0100000, 0x100), memory(0xe0400000, 0x20000)],
    ],
    ['intel-hda', [memory(0xe0000000, 0x4000)]],
  ])('is what QEMU says itself: %s', async (name, bars) => {
    const flat = parseFlatView(golden(`${name}.flat`));
    const windows = bars.map(({ space, start, sizeBytes }) => ({
      space,
      start,
      end: start + sizeBytes - 1,
    }));
    const ranges = await flatView(parseTree(golden(`${name}.tree`)), windows, probeOf(flat));
    for (const { space, start, sizeBytes } of bars) {
      const bar = { start, flags: space === 'io' ? 1 : 0, sizeBytes };
      const of = (view: readonly FlatRange[]) =>
        coverageOf('x', 'BAR', bar, view).map(({ offset, lengthBytes, state }) => [
          offset,
          lengthBytes,
          state,
        ]);
      expect(of(ranges)).toEqual(of(flat));
    }
    const inside = ({ space, start }: FlatRange) =>
      windows.some(
        (window) => window.space === space && window.start <= start && start <= window.end,
      );
    const plain = ({ space, start, end, kind, name: of, regionOffset }: FlatRange) => ({
      space,
      start,
      end,
      kind,
      regionOffset,
      name: of,
    });
    expect(ranges.map(plain)).toEqual(
      flat
        .filter(inside)
        .map(plain)
        .toSorted((a, b) => a.start - b.start),
    );
  });

  const MACHINE = `address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    00000000c0000000-00000000ffffffff (prio -1, i/o): pci
      00000000fe000000-00000000fe00ffff (prio 1, i/o): 0000:00:10.0 base BAR 0
        00000000fe000000-00000000fe00ffff (prio 0, i/o): 0000:00:10.0 BAR 0
          00000000fe001000-00000000fe00ffff (prio 0, ramd): 0000:00:10.0 BAR 0 mmaps[0]MAPPED
        00000000fe000800-00000000fe00081f (prio 1, i/o): vfio-quirk
`;
  const window = [{ space: 'memory', start: 0xfe000000, end: 0xfe00ffff }] as const;
  const all = () => Promise.resolve('i/o' as const);

  test('has a mapped part of a BAR, and what QEMU has laid over it', async () => {
    const ranges = await flatView(parseTree(MACHINE.replace('MAPPED', '')), window, all);
    expect(
      ranges.map(({ start, end, kind, name }) => [
        start - 0xfe000000,
        end - 0xfe000000,
        kind,
        name,
      ]),
    ).toEqual([
      [0, 0x7ff, 'i/o', '0000:00:10.0 BAR 0'],
      [0x800, 0x81f, 'i/o', 'vfio-quirk'],
      [0x820, 0xfff, 'i/o', '0000:00:10.0 BAR 0'],
      [0x1000, 0xffff, 'ramd', '0000:00:10.0 BAR 0 mmaps[0]'],
    ]);
    expect(ranges[2]?.regionOffset).toBe(0x820);
    expect(ranges[3]?.line).toBe(
      '00000000fe001000-00000000fe00ffff (prio 0, ramd): 0000:00:10.0 BAR 0 mmaps[0]',
    );
  });

  test('leaves out what is switched off', async () => {
    const ranges = await flatView(parseTree(MACHINE.replace('MAPPED', ' [disabled]')), window, all);
    expect(ranges.map(({ name }) => name)).toEqual([
      '0000:00:10.0 BAR 0',
      'vfio-quirk',
      '0000:00:10.0 BAR 0',
    ]);
  });

  test('does not take for trapped what QEMU says is RAM, or nothing', async () => {
    const text = MACHINE.replace('MAPPED', ' [disabled]');
    const ram = await flatView(parseTree(text), window, () => Promise.resolve('ram'));
    expect(new Set(ram.map(({ kind }) => kind))).toEqual(new Set(['ram']));
    expect(ram[0]?.line).toMatch(/^gpa2hva: RAM, under 0+fe000000-/);
    expect(await flatView(parseTree(text), window, () => Promise.resolve('nothing'))).toEqual([]);
  });

  test('is nothing where the text says nothing', async () => {
    expect(await flatView(parseTree(''), window, all)).toEqual([]);
    expect(await flatView(parseTree("unknown command: 'info mtree'\n"), window, all)).toEqual([]);
  });

  test('ends, whatever points to what', async () => {
    const text = `address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    00000000fe000000-00000000fe00ffff (prio 0, i/o): alias a @b 0000000000000000-000000000000ffff

memory-region: b
  0000000000000000-000000000000ffff (prio 0, i/o): b
    0000000000000000-000000000000ffff (prio 0, i/o): alias c @b 0000000000000000-000000000000ffff
`;
    const ranges = await flatView(parseTree(text), window, all);
    expect(ranges).toMatchObject([{ name: 'b', start: 0xfe000000, end: 0xfe00ffff }]);
  });
});
