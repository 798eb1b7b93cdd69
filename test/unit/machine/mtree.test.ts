import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { aliasRegions, type AliasRegion } from '../../../src/machine/alias.ts';
import { coverageOf, deviceCoverage, type SeenOfQemu } from '../../../src/machine/coverage.ts';
import { parseTree } from '../../../src/machine/mtree-tree.ts';
import { parseFlatView } from '../../support/flat-view.ts';
import { parseQtree } from '../../../src/machine/qtree.ts';
import { SAMPLE_DEVICE } from '../../support/sample-session.ts';

function golden(name: string): string {
  return readFileSync(new URL(`../../golden/mtree/${name}.txt`, import.meta.url), 'utf8');
}

/** What the log's address stands for. */
function guestAddressOf(alias: AliasRegion | undefined, logged: number): number | undefined {
  if (alias === undefined) return undefined;
  return alias.gpaStart + logged - alias.logBase - alias.regionOffset;
}

const MEMORY = `FlatView #0
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
`;

describe('info mtree -f', () => {
  test('tells ranges of memory and ports apart, and where in its region each begins', () => {
    const ranges = parseFlatView(golden('rtl8139.flat'));
    expect(ranges.find(({ start }) => start === 0x71)).toEqual({
      space: 'io',
      start: 0x71,
      end: 0x71,
      kind: 'i/o',
      name: 'rtc',
      regionOffset: 1,
      line: '0000000000000071-0000000000000071 (prio 0, i/o): rtc @0000000000000001',
    });
    expect(ranges.filter(({ name }) => name === 'rtl8139')).toMatchObject([
      { space: 'io', start: 0xc000, end: 0xc0ff, kind: 'i/o' },
      { space: 'memory', start: 0xe0000000, end: 0xe00000ff, kind: 'i/o' },
    ]);
    expect(
      ranges.find(({ start, space }) => start === 0x100000 && space === 'memory'),
    ).toMatchObject({ kind: 'ram', name: 'pc.ram', regionOffset: 0x100000 });
  });

  test('passes over the views of SMM and of devices', () => {
    const ranges = parseFlatView(golden('rtl8139.flat'));
    const places = ranges.map(({ space, start }) => `${space} ${start}`);
    expect(new Set(places).size).toBe(places.length);
    expect(
      parseFlatView(
        'FlatView #3\n AS "nic", root: bus master container\n Root memory region: x\n  0000000000000000-00000000000000ff (prio 0, ram): x\n',
      ),
    ).toEqual([]);
  });

  test('takes off what follows the name', () => {
    const text = `${MEMORY}  00000000fe000000-00000000fe0fffff (prio 0, ramd): 0000:00:10.0 BAR 0 mmaps[0] @0000000000001000 owner:{dev path=/machine/peripheral/x} KVM
  00000000fe100000-00000000fe1fffff (prio 1, i/o): 0000:00:10.0 BAR 0 @0000000000101000
  0000000100000000-000000013fffffff (prio 0, nv-ram): nvdimm KVM
  what is this
`;
    expect(parseFlatView(text)).toMatchObject([
      { kind: 'ramd', name: '0000:00:10.0 BAR 0 mmaps[0]', regionOffset: 0x1000 },
      { kind: 'i/o', name: '0000:00:10.0 BAR 0', regionOffset: 0x101000 },
      { kind: 'ram', name: 'nvdimm', regionOffset: 0, end: 0x13fffffff },
    ]);
  });

  test('anything else has no ranges', () => {
    expect(parseFlatView('')).toEqual([]);
    expect(parseFlatView("unknown command: 'info mtree -f'\n")).toEqual([]);
  });
});

describe('coverage of a BAR', () => {
  const bar = { start: 0xfe000000, flags: 0, sizeBytes: 0x10000 };

  test('i/o is trapped; each range quotes its line', () => {
    const ranges = parseFlatView(golden('e1000e.flat'));
    const bar0 = { start: 0xe0000000, flags: 0, sizeBytes: 0x20000 };
    expect(coverageOf('nic', 'BAR0', bar0, ranges)).toEqual([
      {
        device: 'nic',
        region: 'BAR0',
        offset: 0,
        lengthBytes: 0x20000,
        state: 'trapped',
        why: 'info mtree: 00000000e0000000-00000000e001ffff (prio 1, i/o): e1000e-mmio',
      },
    ]);
    const io = { start: 0xc000, flags: 1, sizeBytes: 0x20 };
    expect(coverageOf('nic', 'BAR2', io, ranges)).toMatchObject([
      { offset: 0, lengthBytes: 0x20, state: 'trapped' },
    ]);
  });

  test('RAM is bypassed', () => {
    const ranges = parseFlatView(golden('bochs-display.flat'));
    const vram = { start: 0xe0000000, flags: 8, sizeBytes: 0x1000000 };
    expect(coverageOf('vga', 'BAR0', vram, ranges)).toMatchObject([
      { offset: 0, lengthBytes: 0x1000000, state: 'bypassed' },
    ]);
  });

  test('a mapped window between trapped ones, and a hole, are told to the byte', () => {
    const ranges = parseFlatView(`${MEMORY}  00000000fdff0000-00000000fe000fff (prio 1, i/o): a
  00000000fe001000-00000000fe001fff (prio 0, ramd): a mmaps[0] KVM
  00000000fe004000-00000000fe00ffff (prio 1, i/o): a @0000000000004000
`);
    const parts = coverageOf('x', 'BAR0', bar, ranges);
    expect(parts.map(({ offset, lengthBytes, state }) => [offset, lengthBytes, state])).toEqual([
      [0, 0x1000, 'trapped'],
      [0x1000, 0x1000, 'bypassed'],
      [0x2000, 0x2000, 'unknown'],
      [0x4000, 0xc000, 'trapped'],
    ]);
    expect(parts[1]?.why).toContain('ramd): a mmaps[0] KVM');
  });

  test("QEMU's own parts of a passed-through device: the MSI-X table if it is recorded, quirks never", () => {
    const ranges =
      parseFlatView(`${MEMORY}  00000000fe000000-00000000fe000fff (prio 0, i/o): 0000:00:10.0 BAR 0
  00000000fe001000-00000000fe00104f (prio 0, i/o): msix-table
  00000000fe001050-00000000fe001fff (prio 0, i/o): 0000:00:10.0 BAR 0 @0000000000001050
  00000000fe002000-00000000fe00ffff (prio 1, i/o): vfio-nvidia-bar0-88-mirror-quirk
`);
    const bars = [bar, ...Array.from({ length: 6 }, () => ({ start: 0, flags: 0, sizeBytes: 0 }))];
    const statesOf = (hostAddress: string, seen: SeenOfQemu) =>
      deviceCoverage({ ...SAMPLE_DEVICE, hostAddress, type: '', bars }, ranges, seen).map(
        ({ state }) => state,
      );
    expect(statesOf('0000:00:10.0', 'tables')).toEqual([
      'trapped',
      'trapped',
      'trapped',
      'emulated',
    ]);
    expect(statesOf('0000:00:10.0', 'none')).toEqual([
      'trapped',
      'emulated',
      'trapped',
      'emulated',
    ]);
    const plain = ['trapped', 'trapped', 'trapped', 'trapped'];
    expect(statesOf('0000:00:10.0', 'all')).toEqual(plain);
    expect(statesOf('', 'none')).toEqual(plain);
  });

  test('nothing is known of a BAR without address, of one that nothing answers, of other kinds', () => {
    expect(coverageOf('x', 'BAR0', { ...bar, start: 0 }, [])).toMatchObject([
      { offset: 0, lengthBytes: 0x10000, state: 'unknown', why: 'not mapped when asked' },
    ]);
    const ranges = parseFlatView(golden('rtl8139.flat'));
    const unmapped = { start: 0xd000, flags: 1, sizeBytes: 0x100 };
    expect(coverageOf('x', 'BAR0', unmapped, ranges)).toMatchObject([
      { lengthBytes: 0x100, state: 'unknown' },
    ]);
    const odd = parseFlatView(`${MEMORY}  00000000fe000000-00000000fe00ffff (prio 1, new): a\n`);
    expect(coverageOf('x', 'BAR0', bar, odd)).toMatchObject([{ state: 'unknown' }]);
    expect(coverageOf('x', 'BAR1', { start: 0, flags: 0, sizeBytes: 0 }, ranges)).toEqual([]);
  });
});

describe('where the log’s address is not the guest’s', () => {
  test('most devices: nowhere, nor EHCI, whose registers lie in a container', () => {
    expect(aliasRegions(parseTree(golden('e1000e.tree')))).toEqual([]);
    expect(aliasRegions(parseTree(golden('usb-ehci.tree')))).toEqual([]);
  });

  // readl 0xe0000040: memory_region_ops_read … addr 0xc040 … name 'rtl8139', and so does inl 0xc040
  test('rtl8139: its memory BAR is logged as its port', () => {
    const [alias, ...others] = aliasRegions(parseTree(golden('rtl8139.tree')));
    expect(others).toEqual([]);
    expect(alias).toEqual({
      name: 'rtl8139',
      space: 'memory',
      gpaStart: 0xe0000000,
      lengthBytes: 0x100,
      logBase: 0xc000,
      regionOffset: 0,
      ambiguous: true,
      shadowed: false,
    });
    expect(guestAddressOf(alias, 0xc040)).toBe(0xe0000040);
  });

  // readl 0xe0000040: … addr 0x40 … name 'rtl8139'
  test('rtl8139 whose I/O BAR was never mapped: logged as the offset, without doubt', () => {
    const [alias] = aliasRegions(parseTree(golden('rtl8139-without-io.tree')));
    expect(alias).toMatchObject({ logBase: 0, ambiguous: false });
    expect(guestAddressOf(alias, 0x40)).toBe(0xe0000040);
  });

  // readl 0xe0100040: … addr 0xd040 … name 'rtl8139'
  test('behind a bridge: its windows change nothing, the device’s own alias does', () => {
    const aliases = aliasRegions(parseTree(golden('rtl8139-behind-bridge.tree')));
    expect(aliases.map(({ name }) => name)).toEqual(['rtl8139']);
    expect(guestAddressOf(aliases[0], 0xd040)).toBe(0xe0100040);
  });

  // inl 0xc010: … addr 0xe8000010 … name 'ati.mmregs', and so does readl 0xe8000010
  test('ati-vga: its I/O BAR is logged as its memory BAR', () => {
    const [alias] = aliasRegions(parseTree(golden('ati-vga.tree')));
    expect(alias).toMatchObject({ name: 'ati.mmregs', space: 'io', ambiguous: true });
    expect(alias?.shadowed).toBe(true);
  });

  // readl 0xe0002030: … addr 0xe0000030 … name 'intel-hda'
  test('intel-hda: its mirror is logged as the registers themselves, which are taken', () => {
    const [alias] = aliasRegions(parseTree(golden('intel-hda.tree')));
    expect(alias).toMatchObject({ name: 'intel-hda', space: 'memory', ambiguous: true });
    expect(alias?.shadowed).toBe(true);
  });

  test('two devices of one name cannot be told apart', () => {
    const two = golden('rtl8139-without-io.tree')
      .replaceAll(
        /^( *)00000000e0000000-00000000e00000ff (.*alias rtl8139-mem.*)$/gm,
        '$&\n$100000000e0000100-00000000e00001ff $2',
      )
      .replace(/^memory-region: rtl8139\n.*\n/m, '$&\n$&');
    const aliases = aliasRegions(parseTree(two));
    expect(aliases.map(({ gpaStart }) => gpaStart)).toEqual([0xe0000000, 0xe0000100]);
    expect(aliases.every(({ ambiguous }) => ambiguous)).toBe(true);
  });

  test('disabled regions, unknown lines and endless aliases do no harm', () => {
    const text = `address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    00000000e0000000-00000000e00000ff (prio 1, i/o): alias a @loop 0000000000000000-00000000000000ff
    00000000e0001000-00000000e00010ff (prio 1, i/o): alias b @gone 0000000000000000-00000000000000ff
    00000000e0002000-00000000e00020ff (prio 1, i/o): alias c @off 0000000000000000-00000000000000ff [disabled]
    ???

memory-region: loop
  0000000000000000-00000000000000ff (prio 0, i/o): loop
    0000000000000000-00000000000000ff (prio 0, i/o): alias loop2 @loop 0000000000000000-00000000000000ff

memory-region: off
  0000000000000000-00000000000000ff (prio 0, i/o): off
`;
    expect(aliasRegions(parseTree(text)).map(({ name }) => name)).toEqual(['loop']);
    expect(aliasRegions(parseTree(''))).toEqual([]);
    expect(parseTree(text)).toHaveLength(3);
  });
});

describe('info qtree', () => {
  test('has functions by bus and address, with sizes of unassigned BARs', () => {
    const text = `bus: main-system-bus
  type System
  dev: q35-pcihost, id ""
    bus: pcie.0
      type PCIE
      dev: pcie-root-port, id "rp1"
        addr = 01.0
        class PCI bridge, addr 00:01.0, pci id 1b36:000c (sub 0000:0000)
        bar 0: mem at 0xffffffffffffffff [0xffe]
        bus: rp1
          type PCIE
          dev: nvme, id ""
            class Class 0108, addr 01:00.0, pci id 1b36:0010 (sub 1af4:1100)
            bar 0: mem at 0xfebf0000 [0xfebf3fff]
            bus: nvme-bus.0
              type nvme-bus
      dev: ICH9-SMB, id ""
        class SMBus, addr 00:1f.3, pci id 8086:2930 (sub 1af4:1100)
        bar 4: i/o at 0xffffffffffffffff [0x3e]
`;
    const found = parseQtree(text);
    expect(found.map(({ busName, address, type }) => `${busName} ${address} ${type}`)).toEqual([
      'pcie.0 01.0 pcie-root-port',
      'rp1 00.0 nvme',
      'pcie.0 1f.3 ICH9-SMB',
    ]);
    expect(found[0]?.bars[0]).toEqual({ start: 0, flags: 0, sizeBytes: 0x1000 });
    expect(found[1]).toMatchObject({
      bus: 1,
      vendorId: 0x1b36,
      deviceId: 0x10,
      classCode: 0x010800,
    });
    expect(found[1]?.bars[0]).toEqual({ start: 0xfebf0000, flags: 0, sizeBytes: 0x4000 });
    expect(found[2]?.bars[4]).toEqual({ start: 0, flags: 1, sizeBytes: 0x40 });
  });
});
