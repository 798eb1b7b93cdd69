/** What doctor says of real QEMUs: of their programs, and of VMs with an emulated device. */
import { chmodSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CheckResult } from '../../src/doctor/check.ts';
import { askProgram, askRunning } from '../../src/machine/qemu-abilities.ts';
import { ALL_EVENTS } from '../../src/recording/source/trace-events.ts';
import { missingEvents } from '../../src/doctor/qemu.ts';
import { Bench, stateOf } from '../support/attach.ts';
import { hammerGuest } from '../support/guests.ts';
import { qemuVersions } from '../support/qemu.ts';

let bench: Bench;

beforeEach(async () => {
  bench = await Bench.open();
});

afterEach(async () => {
  await bench.close();
});

interface Report {
  readonly status: string;
  readonly code: number | null;
  readonly checks: readonly (CheckResult & { readonly group: string })[];
}

async function examine(...args: readonly string[]): Promise<Report> {
  const run = bench.cli('doctor', '--json', ...args);
  const code = await run.code();
  expect(run.stderr).toBe('');
  return { ...(JSON.parse(run.stdout) as Report), code };
}

function inVm({ checks }: Report): string[] {
  return checks
    .filter(({ group }) => group === 'VM')
    .map(({ status, title, evidence }) => `${status} ${title}: ${evidence}`);
}

describe.each(qemuVersions())('QEMU $version', ({ version, path }) => {
  test('can do what a recording needs, as its program and as a VM say', async () => {
    const program = await askProgram(path);
    expect(program.version).toMatch(new RegExp(`^${version}\\.\\d+$`));
    expect(program.tracesToLog).toBe(true);
    expect(missingEvents(program.traceEvents, ALL_EVENTS)).toEqual([]);
    expect(program.vfioPciOptions).toContain('x-no-mmap');

    const guest = await bench.guest(await hammerGuest({ iterations: 0, qemu: path }));
    const running = await askRunning(guest.watcher);
    expect(running.version.startsWith(`${program.version} `)).toBe(true);
    expect(running.tracesToLog).toBe(true);
    expect(missingEvents(running.traceEvents, ALL_EVENTS)).toEqual([]);
    expect(running.vfioPciOptions).toContain('x-no-mmap');
  });

  test('an emulated device is trapped, and the VM is as it was before', async () => {
    const guest = await bench.guest(await hammerGuest({ iterations: 0, qemu: path }));
    const before = await stateOf(guest);
    const report = await examine('--qmp', guest.socket, '--device', 'dut');
    expect(inVm(report)).toEqual([
      'ok dut BAR0: trapped: 1 MiB at +0x0',
      'ok timestamps: on: times are those of QEMU',
      `ok log of the VM: QEMU can log into ${bench.path('run')}, and we can read it`,
    ]);
    expect(report.checks.map(({ id }) => id)).not.toContain('iommu');
    expect(await stateOf(guest)).toEqual(before);
    expect(guest.events).not.toContain('STOP');
    expect(readdirSync(bench.path('run'))).toEqual([]);
  });
});

describe('a VM', () => {
  const hammer = () => hammerGuest({ iterations: 0, pauseTurns: 40_000 });

  test('without timestamps', async () => {
    const guest = await bench.guest(await hammer(), { timestamps: false });
    const { checks, code } = await examine('--qmp', guest.socket, '--device', 'dut');
    expect(code).toBe(0);
    expect(checks.find(({ id }) => id === 'timestamps')).toMatchObject({
      status: 'warning',
      remedy: 'start QEMU with -msg timestamp=on',
    });
  });

  test('that has not begun: its BARs are nowhere yet', async () => {
    const guest = await bench.guest([...(await hammer()), '-S']);
    const report = await examine('--qmp', guest.socket, '--device', 'dut');
    expect(inVm(report)[0]).toBe(
      'warning dut BAR0: unknown: 1 MiB at +0x0 (not mapped when asked)',
    );
  });

  test('without a passed-through device', async () => {
    const guest = await bench.guest(await hammer());
    const report = await examine('--qmp', guest.socket);
    expect(report.code).toBe(1);
    expect(inVm(report)[0]).toMatch(
      /^failure devices of the VM: none is passed through; it has .*\bedu dut at 00:04\.0/,
    );
  });

  test('without the device that was named', async () => {
    const guest = await bench.guest(await hammer());
    const report = await examine('--qmp', guest.socket, '--device', 'dut', '--device', 'nic');
    expect(report.code).toBe(1);
    expect(inVm(report).slice(0, 2)).toEqual([
      expect.stringMatching(/^failure devices of the VM: it has no nic; it has .*edu dut at/),
      'ok dut BAR0: trapped: 1 MiB at +0x0',
    ]);
  });

  test('of another user, whose QEMU gets into the run folder, or does not', async () => {
    const guest = await bench.guest(await hammer(), { user: 'nobody' });
    const log = async () => {
      const { checks } = await examine('--qmp', guest.socket, '--device', 'dut');
      return checks.find(({ id }) => id === 'log-file');
    };
    expect(await log()).toMatchObject({ status: 'ok' });
    chmodSync(bench.path('run'), 0o700);
    const refused = await log();
    expect(refused?.status).toBe('failure');
    expect(refused?.evidence).toMatch(/^QEMU cannot log .*Permission denied, user 65534/);
    expect(refused?.remedy).toMatch(/mmiobridge record --spool DIR$/);
    expect(readdirSync(bench.path('run'))).toEqual([]);
  });

  test('whose monitor another program holds', async () => {
    const guest = await bench.guest(await hammer());
    const held = bench.path('qemu', 'watch.sock');
    const { checks, code } = await examine('--qmp', held);
    expect(code).toBe(1);
    const qmp = checks.find(({ id }) => id === 'qmp');
    expect(qmp?.status).toBe('failure');
    expect(qmp?.remedy).toContain('QEMU serves one QMP client at a time');
    expect(guest.isRunning).toBe(true);
  });
});
