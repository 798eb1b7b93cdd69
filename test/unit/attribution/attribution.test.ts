import { describe, expect, test } from 'vitest';
import { Attribution } from '../../../src/attribution/attribution.ts';
import { isBatch } from '../../../src/model/stream.ts';
import { QemuLogDecoder } from '../../../src/sources/qemu-log/decoder.ts';
import { eventsOf, stamped, textOf } from '../../support/convert-log.ts';

const add = (bar: number, gpa: number, size = 0x20000, type = 'vfio-pci', at = '00:01.0') =>
  `pci_update_mappings_add ${type} ${at} ${bar},0x${gpa.toString(16)}+0x${size.toString(16)}`;
const del = (bar: number, gpa: number, size = 0x20000, type = 'vfio-pci', at = '00:01.0') =>
  add(bar, gpa, size, type, at).replace('_add', '_del');
const write = (offset: number, value: number, host = '0000:00:10.0', region = 0) =>
  `vfio_region_write  (${host}:region${region}+0x${offset.toString(16)}, 0x${value.toString(16)}, 4)`;
const ops = (addr: number, name: string, cpu = 0, value = '0x1', size = 4) =>
  `memory_region_ops_write cpu ${cpu} mr 0x55d0 addr 0x${addr.toString(16)} value ${value} size ${size} name '${name}'`;
const e1000 = (gpa: number) => add(0, gpa, 0x20000, 'e1000', '00:02.0');

describe('mappings', () => {
  test('PCIDEV and MAP come just before the first access, with the address that it uses', async () => {
    const log = stamped([
      'vfio_region_setup Device 0000:00:10.0, region 0 "x", flags: 0x7, offset: 0x0, size: 0x20000',
      'vfio_pci_read_config  (0000:00:10.0, @0x0, len=0x4) 0x10d38086',
      add(0, 0xfebc0000),
      write(0x100, 0x28),
    ]);
    expect(await textOf(log)).toEqual([
      'PCIDEV 0008 808610d3 0 febc0000 0 0 0 0 0 0 20000 0 0 0 0 0 0 ',
      'MAP 0.000003 1 0xfebc0000 0x0 0x20000 0x0 0',
      'W 4 0.000003 1 0xfebc0100 0x28 0x0 0',
    ]);
  });
  test('a del followed by the same add is the same mapping', async () => {
    const log = stamped([
      add(0, 0xfebc0000),
      write(0, 1),
      del(0, 0xfebc0000),
      add(0, 0xfebc0000),
      write(0, 2),
    ]);
    const lines = await textOf(log);
    expect(lines.filter((line) => /^(MAP|UNMAP|PCIDEV)/.test(line))).toHaveLength(2);
    expect(lines.at(-1)).toBe('W 4 0.000004 1 0xfebc0000 0x2 0x0 0');
  });
  test('a move writes UNMAP, PCIDEV, MAP, at the first access through the new place', async () => {
    const log = stamped([
      add(0, 0xfebc0000),
      write(0, 1),
      del(0, 0xfebc0000),
      add(0, 0xf0000000),
      'vfio_unrelated x',
      write(4, 2),
    ]);
    expect((await textOf(log)).slice(2)).toEqual([
      'W 4 0.000001 1 0xfebc0000 0x1 0x0 0',
      'UNMAP 0.000005 1 0x0 0',
      'PCIDEV 0008 00000000 0 f0000000 0 0 0 0 0 0 20000 0 0 0 0 0 0 ',
      'MAP 0.000005 2 0xf0000000 0x0 0x20000 0x0 0',
      'W 4 0.000005 2 0xf0000004 0x2 0x0 0',
    ]);
  });
  test('sizing, with the BAR at odd places that nobody uses, leaves no trace', async () => {
    const log = stamped([
      add(0, 0xfebc0000),
      write(0, 1),
      del(0, 0xfebc0000),
      add(0, 0xfffe0000),
      del(0, 0xfffe0000),
      add(0, 0xfebc0000),
      write(0, 2),
    ]);
    const lines = await textOf(log);
    expect(lines.filter((line) => line.startsWith('MAP'))).toHaveLength(1);
    expect(lines.at(-1)).toContain(' 1 0xfebc0000 0x2 ');
  });
  test('without a mapping, addresses are offsets within the BAR, and a MARK says so', async () => {
    const lines = await textOf(stamped([write(0x100, 1), write(0x104, 2)]));
    expect(lines).toEqual([
      'MARK 0.000000 mmiobridge: 0000:00:10.0 BAR0: no mapping known, addresses are offsets within the BAR',
      'W 4 0.000000 0 0x100 0x1 0x0 0',
      'W 4 0.000001 0 0x104 0x2 0x0 0',
    ]);
  });
  test('a base that the user gives', async () => {
    const base = { device: '0000:00:10.0', bar: 0, gpa: 0xf0000000, sizeBytes: 0x1000 };
    const lines = await textOf(stamped([write(0x100, 1)]), { barBase: [base] });
    expect(lines.slice(-2)).toEqual([
      'MAP 0.000000 1 0xf0000000 0x0 0x1000 0x0 0',
      'W 4 0.000000 1 0xf0000100 0x1 0x0 0',
    ]);
  });
});

describe('attribution', () => {
  test('two passed-through devices are told apart by the sizes of their BARs', async () => {
    const setup = (host: string, size: string) =>
      `vfio_region_setup Device ${host}, region 0 "x", flags: 0x7, offset: 0x0, size: ${size}`;
    const log = stamped([
      setup('0000:01:00.0', '0x1000'),
      setup('0000:02:00.0', '0x4000'),
      add(0, 0xf1000000, 0x4000, 'vfio-pci', '00:05.0'),
      add(0, 0xf2000000, 0x1000, 'vfio-pci', '00:06.0'),
      write(0x10, 1, '0000:01:00.0'),
      write(0x10, 2, '0000:02:00.0'),
    ]);
    const accesses = (await textOf(log)).filter((line) => line.startsWith('W'));
    expect(accesses).toEqual([
      'W 4 0.000004 1 0xf2000010 0x1 0x0 0',
      'W 4 0.000005 2 0xf1000010 0x2 0x0 0',
    ]);
  });
  test('an emulated device is known by the addresses of its BARs, whatever its regions are called', async () => {
    const log = stamped([
      e1000(0xfebc0000),
      ops(0xfebbffff, 'other'),
      ops(0xfebc0000, 'e1000-mmio'),
      ops(0xfebdfffc, 'doorbell'),
      ops(0xfebe0000, 'other'),
    ]);
    const lines = (await textOf(log, { device: ['e1000'] })).filter((line) => line.startsWith('W'));
    expect(lines.map((line) => line.split(' ')[4])).toEqual(['0xfebc0000', '0xfebdfffc']);
  });
  test('an access to a passed-through device that is in two kinds of lines is taken once', async () => {
    const log = stamped([
      'vfio_region_setup Device 0000:00:10.0, region 0 "x", flags: 0x7, offset: 0x0, size: 0x20000',
      add(0, 0xfebc0000),
      e1000(0xfeb80000),
      ops(0xfebc0004, '0000:00:10.0 BAR 0', 0, '0x7'),
      write(4, 7),
      ops(0xfebc2000, 'msix-table', 0, '0x8'),
      ops(0xfeb80000, 'e1000-mmio', 0, '0x9'),
    ]);
    const lines = await textOf(log, { device: ['0000:00:10.0', 'e1000'] });
    expect(lines.filter((line) => line.startsWith('W'))).toEqual([
      'W 4 0.000004 1 0xfebc0004 0x7 0x0 0',
      'W 4 0.000005 1 0xfebc2000 0x8 0x0 0',
      'W 4 0.000006 2 0xfeb80000 0x9 0x0 0',
    ]);
  });
  test('of a log without the lines of vfio, memory_region_ops will do', async () => {
    const log = stamped([add(0, 0xfebc0000), ops(0xfebc0004, '0000:00:10.0 BAR 0', 0, '0x7')]);
    const lines = await textOf(log, { device: ['vfio-pci'] });
    expect(lines.at(-1)).toBe('W 4 0.000001 1 0xfebc0004 0x7 0x0 0');
  });
  test("devices' own accesses are counted, and are not the driver's", async () => {
    const log = stamped([e1000(0xfebc0000), ops(0xfebc0000, 'e1000-mmio', -1)]);
    const events = await eventsOf(log, { device: ['00:02.0'] });
    const end = events.find((event) => event.kind === 'end');
    expect(end).toMatchObject({
      counters: {
        writes: 0,
        otherLines: { 'memory_region_ops (a device, not a vCPU)': 1 },
      },
    });
  });
  test('values are masked to the width', async () => {
    const value = '0xffffffffffffff80';
    const log = stamped([e1000(0xfebc0000), ops(0xfebc0000, 'e1000-mmio', 0, value, 1)]);
    expect((await textOf(log, { device: ['e1000'] })).at(-1)).toMatch(/^W 1 .* 0x80 0x0 0$/);
  });
  test('port accesses are MARKs, and ports get no MAP', async () => {
    const log = stamped([
      add(1, 0xc000, 0x40, 'e1000', '00:02.0'),
      ops(0xc004, 'e1000-io', 0, '0x12'),
    ]);
    expect(await textOf(log, { device: ['e1000'] })).toEqual([
      'PCIDEV 0010 00000000 0 0 c001 0 0 0 0 0 0 40 0 0 0 0 0 ',
      'MARK 0.000001 mmiobridge: pio W 4 00:02.0 BAR1+0x4 0xc004 0x12',
    ]);
  });
  test('a selection that fits nothing says what there is', async () => {
    await expect(textOf(stamped([e1000(0xfebc0000)]))).rejects.toMatchObject({
      code: 'not-found',
      evidence: 'it has: e1000 at 00:02.0',
    });
  });
});

describe('events', () => {
  test("of a passed-through one QEMU's own lines count for the MSI-X table only", async () => {
    const log = stamped([
      'vfio_region_setup Device 0000:00:10.0, region 0 "x", flags: 0x7, offset: 0x0, size: 0x20000',
      add(0, 0xfebc0000),
      write(0x100, 0x28),
      ops(0xfebc0100, '0000:00:10.0 BAR 0', 0, '0x28'),
      ops(0xfebc1000, 'msix-table', 1, '0x29'),
      ops(0xfebc2000, 'vfio-nvidia-bar0-88-mirror-quirk', 0, '0x2a'),
    ]);
    expect((await textOf(log)).filter((line) => line.startsWith('W'))).toEqual([
      'W 4 0.000002 1 0xfebc0100 0x28 0x0 0',
      'W 4 0.000004 1 0xfebc1000 0x29 0x0 0',
    ]);
  });
  test('writes that QEMU hands to the kernel are loss, from there on', async () => {
    const log = stamped([
      add(0, 0xfebc0000),
      write(0x100, 0x28),
      'vfio_ioeventfd_init vfio-nvidia-bar0-88-mirror-quirk+0x704[4]:0xff vfio:1',
    ]);
    const events = await eventsOf(log);
    expect(events.filter(({ kind }) => kind === 'loss')).toEqual([
      {
        kind: 'loss',
        timeNs: 2000,
        count: -1,
        durationNs: 0,
        reason:
          'QEMU leaves writes of 0xff to vfio-nvidia-bar0-88-mirror-quirk+0x704 to the kernel from here on',
      },
    ]);
    expect(events.at(-1)).toMatchObject({ kind: 'end', complete: false });
  });
  test('interrupts and resets stand where they happened; MSI-X once vectors are used', async () => {
    const log = stamped([
      add(0, 0xfebc0000),
      write(0, 1),
      'vfio_msi_interrupt  (0000:00:10.0) vector 0 0xfee00000/0x1',
      'vfio_msix_vector_do_use  (0000:00:10.0) vector 2 used',
      'vfio_msi_interrupt  (0000:00:10.0) vector 2 0xfee00000/0x1',
      'vfio_intx_interrupt  (0000:00:10.0) Pin A',
      write(0, 2),
      'vfio_pci_reset  (0000:00:10.0)',
    ]);
    expect((await textOf(log)).slice(2)).toEqual([
      'W 4 0.000001 1 0xfebc0000 0x1 0x0 0',
      'MARK 0.000002 mmiobridge: interrupt 0000:00:10.0 msi 0',
      'MARK 0.000004 mmiobridge: interrupt 0000:00:10.0 msix 2',
      'MARK 0.000005 mmiobridge: interrupt 0000:00:10.0 intx 0',
      'W 4 0.000006 1 0xfebc0000 0x2 0x0 0',
      'MARK 0.000007 mmiobridge: reset 0000:00:10.0',
    ]);
  });
  test('damage is kept with its offset, and the recording goes on', async () => {
    const head = stamped([add(0, 0xfebc0000), write(0, 1)]);
    const events = await eventsOf(`${head}77@1795392285.000009:vfio_region_write  (x\n`);
    expect(events.find((event) => event.kind === 'damage')).toMatchObject({
      position: { segment: 0, offset: head.length },
    });
    expect(events.at(-1)).toMatchObject({ kind: 'end', complete: false });
  });
});

describe('a register whose writes are marks', () => {
  const configWrite = (offset: number, type = 'e1000', at = '00:02.0') =>
    `pci_cfg_write ${type} ${at} @0x${offset.toString(16)} <- 0x7`;
  const lines = [
    e1000(0xfebc0000),
    ops(0xfebc0000, 'e1000-mmio'),
    configWrite(0x3c),
    ops(0xfebc0004, 'e1000-mmio'),
    configWrite(0x3d),
    configWrite(0x3c, 'rtl8139', '00:03.0'),
  ];

  test('gives a mark between the accesses around it, of a recorded device alone', async () => {
    const attribution = new Attribution(['e1000']);
    attribution.markRegister = 0x3c;
    const decoder = new QemuLogDecoder();
    attribution.targets = decoder.targets;
    decoder.feed(Buffer.from(stamped(lines)));
    const seen: string[] = [];
    for (let raw; (raw = decoder.next()) !== undefined;) {
      attribution.take(raw);
      for (let item; (item = attribution.next()) !== undefined;) {
        if (isBatch(item)) seen.push(`${item.length} access`);
        else if (item.kind === 'mark') seen.push(item.text);
      }
    }
    expect(seen).toEqual(['1 access', 'guest: 0x7 (00:02.0 config+0x3c)', '1 access']);
    expect(attribution.otherLines(new Map())).toEqual({ pci_cfg_write: 2 });
  });

  test('is none unless one was named: its lines are counted as of others', async () => {
    const events = await eventsOf(stamped(lines), { device: ['e1000'] });
    expect(events.filter(({ kind }) => kind === 'mark')).toEqual([]);
    expect(events.at(-1)).toMatchObject({ counters: { otherLines: { pci_cfg_write: 3 } } });
  });
});
