/** What is not known of a recording's coverage is not called complete, whatever the guest did. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { hasNoMemory } from '../../src/machine/ram-blocks.ts';
import { Bench } from '../support/attach.ts';
import { Workplace } from '../support/cli.ts';
import { HAMMER_DONE, HAMMER_SLOT, hammerGuest } from '../support/guests.ts';
import { qemuVersions } from '../support/qemu.ts';
import { words } from '../support/scripts.ts';
import { until } from '../support/soon.ts';

const MEMDEV = words('-object memory-backend-ram,id=shared,size=1M');
/** What is said of coverage and at the end, without the accesses. */
const told = (text: string) =>
  text
    .split('\n')
    .filter((line) => /coverage|mmiobridge: end/.test(line))
    .join('\n');

/** BAR0 has registers, BAR2 is memory that QEMU never sees an access to. */
const IVSHMEM = [
  ...MEMDEV,
  ...words(`-device ivshmem-plain,memdev=shared,id=dut,addr=${HAMMER_SLOT}`),
];

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.open();
});
afterEach(async () => {
  await bench.close();
});

test('a BAR that bypasses QEMU is told of and makes it incomplete, also if nobody accesses it', async () => {
  await using place = new Workplace();
  const guest = await hammerGuest({ iterations: 0, device: IVSHMEM });
  const args = [
    'record',
    '--duration',
    '3',
    '--device',
    'dut',
    '-o',
    'x.mmiotrace',
    '--',
    ...guest,
  ];
  const { status, stderr } = await place.cli(args);
  expect(status, stderr).toBe(3);
  expect(stderr).toMatch(/^mmiobridge: the recording is INCOMPLETE: .*BAR2/m);
  const text = told(place.text('x.mmiotrace'));
  expect(text).toMatch(/^MARK \S+ mmiobridge: coverage end dut BAR2 0x0\+0x100000 bypassed: /m);
  expect(text).toMatch(/mmiobridge: end incomplete/);
});

describe('of a QEMU that could not be asked, because it was gone', () => {
  /** Attaches, loses the connection, and lets the guest run to its end meanwhile. */
  async function recordBlind(device: readonly string[]) {
    const iterations = 20_000;
    const guest = await bench.guest([...(await hammerGuest({ iterations, device })), '-S']);
    const proxy = await bench.proxy(guest.socket);
    const run = await bench.record('--qmp', proxy.path, '--device', 'dut', '-o', 'x.mmiotrace');
    await proxy.cut();
    await until('the loss of the connection is told', () => run.stderr.includes('connection'));
    await guest.watcher.execute('cont');
    expect(await guest.code()).toBe(HAMMER_DONE);
    const status = await run.code();
    expect(run.stderr).toMatch(/^accesses {2}40,000 /m);
    return { status, stderr: run.stderr, text: told(bench.read('x.mmiotrace')) };
  }

  test('a device that has memory may have been bypassed: nobody knows', async () => {
    const { status, stderr, text } = await recordBlind(IVSHMEM);
    expect(status, stderr).toBe(3);
    expect(text).toMatch(
      /coverage end dut BAR2 0x0\+0x100000 unknown: QEMU could not be asked in time how it is mapped/,
    );
    expect(text).toMatch(/mmiobridge: end incomplete/);
  });

  test('one that has none cannot have been', async () => {
    const { status, stderr, text } = await recordBlind(
      words(`-device edu,addr=${HAMMER_SLOT},id=dut`),
    );
    expect(status, stderr).toBe(0);
    expect(text).toMatch(/coverage end dut BAR0 0x0\+0x100000 trapped: /);
    expect(text).toMatch(/mmiobridge: end complete/);
  });
});

test.each(qemuVersions())('QEMU $version tells which devices have memory', async ({ path }) => {
  const devices = [
    [`edu,addr=4`, true],
    ['e1000,addr=5', true],
    ['nvme,addr=6,serial=a', true],
    ['ivshmem-plain,memdev=shared,addr=7', false],
    ['bochs-display,addr=8', false],
    ['virtio-vga,addr=9', false],
  ] as const;
  const guest = await bench.guest([
    path,
    ...words('-machine pc -accel tcg -m 64 -nodefaults -display none -S'),
    ...MEMDEV,
    ...devices.flatMap(([device], at) => ['-device', `${device},id=d${at}`]),
  ]);
  for (const [at, [device, expected]] of devices.entries()) {
    const devfn = Number(/addr=(\d+)/.exec(device)?.[1]) << 3;
    const found = await hasNoMemory(guest.watcher, {
      qomPath: `/machine/peripheral/d${at}`,
      devfn,
    });
    expect([device, found]).toEqual([device, expected]);
  }
});
