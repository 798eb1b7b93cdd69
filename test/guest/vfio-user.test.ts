import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { MmioError } from '../../src/base/errors.ts';
import type { DeviceAccess } from '../../src/vfio-user/device.ts';
import { VfioUserServer } from '../../src/vfio-user/server.ts';
import { accessesOf, firstDifference } from '../support/access-lines.ts';
import { Workplace } from '../support/cli.ts';
import { HAMMER_GPA, hammerGuest, type HammerOptions } from '../support/guests.ts';
import { qemuVersions } from '../support/qemu.ts';
import { complementDevice, vfioUserArgs } from '../support/vfio-user.ts';

/** The one that has vfio-user-pci. */
const QEMU = qemuVersions().find(({ version }) => version === '11.1')?.path ?? '';

const PAIRS = 20_000;

interface Outcome {
  readonly status: number | null;
  readonly stderr: string;
  readonly text: string;
  /** What the device itself saw at BAR0, as `accessesOf` has it. */
  readonly seen: readonly string[];
  readonly all: readonly DeviceAccess[];
  readonly problems: readonly MmioError[];
}

/** Records a hammer guest whose device is our own, and asks both sides what happened. */
async function recordHammer(
  guest: Omit<HammerOptions, 'device' | 'qemu'>,
  selection: (socket: string) => readonly string[] = () => [],
): Promise<Outcome> {
  await using place = new Workplace();
  const socket = place.path('device.sock');
  const problems: MmioError[] = [];
  const device = complementDevice({ keepAccesses: true });
  await using _server = await VfioUserServer.listen(socket, device, {
    onProblem: (problem) => problems.push(problem),
  });
  const argv = await hammerGuest({ ...guest, device: vfioUserArgs(socket), qemu: QEMU });
  const args = ['record', ...selection(socket), '-o', 'x.mmiotrace', '--', ...argv];
  const { status, stderr } = await place.cli(args, { timeoutMs: 120_000 });
  const text = place.text('x.mmiotrace');
  const all = device.accesses;
  return { status, stderr, text, seen: all.filter(isBar0).map(lineOf), all, problems };
}

function isBar0({ region }: DeviceAccess): boolean {
  return region === 0;
}

function lineOf({ op, width, offset, value }: DeviceAccess): string {
  return `${op} ${width} 0x${(HAMMER_GPA + offset).toString(16)} 0x${value.toString(16)}`;
}

describe('a vfio-user device of our own under record', () => {
  test('the log has what the device itself saw, access for access', async () => {
    const { status, stderr, text, seen, problems } = await recordHammer({ iterations: PAIRS });
    expect(status, stderr).toBe(0);
    expect(problems).toEqual([]);
    expect(seen).toHaveLength(2 * PAIRS);
    expect(seen.slice(-2)).toEqual([
      `W 4 0xe1000004 0x${(PAIRS - 1).toString(16)}`,
      `R 4 0xe1000004 0x${(~(PAIRS - 1) >>> 0).toString(16)}`,
    ]);
    expect(firstDifference(accessesOf(text), seen)).toBeUndefined();
    expect(text).toMatch(/^PCIDEV 0020 1234beef 0 e1000000 /m);
    expect(text).toMatch(/^MAP \S+ 1 0xe1000000 0x0 0x1000 0x0 0$/m);
    expect(text).toMatch(/mmiobridge: coverage end dut BAR0 0x0\+0x1000 trapped/);
    expect(stderr).toContain('coverage  complete');
  });

  test('reads that failed are there in their places, and said to have failed', async () => {
    await using place = new Workplace();
    const socket = place.path('device.sock');
    const device = complementDevice({ failsRead: (value) => value % 100n === 7n });
    await using _server = await VfioUserServer.listen(socket, device, {
      onProblem: () => undefined,
    });
    const argv = await hammerGuest({
      iterations: 20_000,
      device: vfioUserArgs(socket),
      qemu: QEMU,
    });
    const outputs = ['-o', 'x.mmiotrace', '-o', 'x.mmiocap', '-o', 'x.ndjson'];
    const { status, stderr } = await place.cli(['record', ...outputs, '--', ...argv]);
    expect(status, stderr).toBe(0);
    expect(stderr).toMatch(/^failed {4}200 accesses \(MARKs say which and why\)$/m);
    const text = place.text('x.mmiotrace');
    // That comes in between, at the end of what was read first.
    const lines = text.split('\n').filter((line) => !line.includes(' coverage head '));
    const failed = lines.flatMap((line, at) => (/mmiobridge: failed /.test(line) ? [at] : []));
    expect(failed).toHaveLength(200);
    for (const [n, at] of failed.entries()) {
      const value = `0x${(n * 100 + 7).toString(16)}`;
      expect(lines[at - 2]).toMatch(new RegExp(`^W 4 \\S+ 1 0xe1000004 ${value} 0x0 0$`));
      expect(lines[at - 1]).toMatch(/^R 4 \S+ 1 0xe1000004 0xffffffff 0x0 0$/);
      expect(lines[at]).toMatch(/failed R 4 dut BAR0\+0x4 0xffffffff: Input\/output error$/);
    }
    const accesses = accessesOf(text);
    expect(accesses).toHaveLength(2 * 20_000);
    expect((await place.cli(['convert', 'x.mmiocap', '-o', 'again.mmiotrace'])).status).toBe(0);
    expect(place.text('again.mmiotrace') === text).toBe(true);
    expect(place.text('x.ndjson').match(/^\{"type":"failed",.*"op":"R"/gm)).toHaveLength(200);
  });

  test('what QEMU says of them gives its room back, however much it is', async () => {
    await using place = new Workplace();
    const socket = place.path('device.sock');
    const device = complementDevice({ failsRead: () => true });
    await using _server = await VfioUserServer.listen(socket, device, {
      onProblem: () => undefined,
    });
    const argv = await hammerGuest({
      iterations: 60_000,
      device: vfioUserArgs(socket),
      qemu: QEMU,
    });
    let mostFreed = 0;
    const looking = setInterval(() => {
      const [session = ''] = readdirSync(place.runDir);
      const found = statSync(join(place.runDir, session, 'qemu.stderr'), { throwIfNoEntry: false });
      if (found?.isFile()) mostFreed = Math.max(mostFreed, found.size - found.blocks * 512);
    }, 20);
    const { status, stderr } = await place.cli(['record', '-o', 'x.mmiotrace', '--', ...argv]);
    clearInterval(looking);
    expect(status, stderr).toBe(0);
    expect(mostFreed).toBeGreaterThan(2 ** 20 - 4096);
    expect(stderr).toMatch(/^failed {4}60,000 accesses/m);
  });

  test('in every width: 1, 2, 4 and 8 bytes', async () => {
    const pairs = 3_000;
    const { status, stderr, text, seen, problems } = await recordHammer({
      iterations: pairs,
      widths: 1 + 2 + 4 + 8,
      writeOffset: 0,
      readOffset: 0,
    });
    expect(status, stderr).toBe(0);
    expect(problems).toEqual([]);
    const turn = ['W 1', 'R 1', 'W 2', 'R 2', 'W 4', 'R 4', 'W 8', 'R 8'];
    expect(seen.map((line) => line.slice(0, 3))).toEqual(
      Array.from({ length: pairs }, () => turn).flat(),
    );
    expect(seen.slice(-2)).toEqual([
      'W 8 0xe1000000 0xbb700000bb7',
      'R 8 0xe1000000 0xfffff44800000bb7',
    ]);
    expect(firstDifference(accessesOf(text), seen)).toBeUndefined();
  });

  test.each<[string, (socket: string) => string]>([
    ['its id', () => 'dut'],
    ['its guest address', () => '00:04.0'],
    ['its type', () => 'vfio-user-pci'],
    ['its socket', (socket) => `vfio-user:${socket}`],
  ])('it is selected by %s', async (_what, name) => {
    // Long enough for QEMU to be asked how the BAR is mapped.
    const pairs = 20_000;
    const { status, stderr, text, seen } = await recordHammer({ iterations: pairs }, (socket) => [
      '--device',
      name(socket),
    ]);
    expect(status, stderr).toBe(0);
    expect(seen).toHaveLength(2 * pairs);
    expect(firstDifference(accessesOf(text), seen)).toBeUndefined();
  });
});
