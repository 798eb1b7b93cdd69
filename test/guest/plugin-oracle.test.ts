import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { firstDifference } from '../support/access-lines.ts';
import { Workplace } from '../support/cli.ts';
import { oracleDrivers, oracleGuest, readGuestTrace, splitDrivers } from '../support/oracle.ts';
import { makePlugin } from '../support/plugin.ts';
import { qemuVersions } from '../support/qemu.ts';
import { scriptLines, scriptPath, words } from '../support/scripts.ts';

const DRIVERS = [...oracleDrivers, ...splitDrivers];
const NEWER = qemuVersions().filter(({ version }) => Number(version) >= 9.2);

interface Traced {
  readonly address: number;
  /** Op, width, address, value, program counter; of an UNKNOWN line the address alone. */
  readonly words: string;
  readonly isUnknown: boolean;
}

function tracedIn(log: string): Traced[] {
  const pattern =
    /^(?:([RW] \d+) \S+ \d+ (0x\w+) (0x\w+) (0x\w+)|UNKNOWN \S+ \d+ (0x\w+) \S+ (0x\w+)) \d+$/gm;
  return [...log.matchAll(pattern)].map(([, op, address, value, pc, unknownAt]) => ({
    address: parseInt(address ?? unknownAt ?? '', 16),
    words: op === undefined ? (unknownAt ?? '') : [op, address, value, pc].join(' '),
    isUnknown: op === undefined,
  }));
}

/** Start and length of the BARs in memory, by a PCIDEV line of the kernel. */
function barsIn(log: string, pciId: string): { readonly start: number; readonly end: number }[] {
  const fields = new RegExp(`^PCIDEV \\S+ ${pciId} .*$`, 'm').exec(log)?.[0].split(' ') ?? [];
  return [0, 1, 2, 3, 4, 5].flatMap((bar) => {
    const [flagged = 0, size = 0] = [fields[4 + bar], fields[11 + bar]].map((word) =>
      parseInt(word ?? '', 16),
    );
    const start = flagged - (flagged % 16);
    return size > 0 && flagged % 2 === 0 ? [{ start, end: start + size }] : [];
  });
}

describe.each(NEWER)('the plugin in QEMU $version', ({ version, path }) => {
  test(`${DRIVERS.map(({ name }) => name).join(', ')}: the same as the guest kernel's own mmiotrace, program counters too`, async () => {
    makePlugin();
    await using place = new Workplace();
    const traceFile = place.path('guest-trace');
    const guest = await oracleGuest(DRIVERS, traceFile, {
      qemu: path,
      kernelWords: 'mmiotrace.trace_pc=1',
    });
    const devices = DRIVERS.flatMap(({ qemuId }) => ['--device', qemuId]);
    const { status, stderr } = await place.cli(
      ['record', '--source', 'plugin', ...devices, '-o', 'ours.mmiotrace', '--', ...guest],
      { timeoutMs: 150_000 },
    );
    // No plugin sees I/O ports, and some of these devices have such a BAR.
    expect(status, stderr).toBe(3);
    expect(stderr).toContain('loss      none');
    const kernel = await readGuestTrace(traceFile);
    const theirs = tracedIn(kernel);
    const all = tracedIn(place.text('ours.mmiotrace'));
    for (const { name, pciId } of DRIVERS) {
      const bars = barsIn(kernel, pciId);
      const isOfIt = ({ address }: Traced) =>
        bars.some(({ start, end }) => start <= address && address < end);
      const traced = theirs.filter(isOfIt);
      // Firmware drives devices, too, before the guest's tracer is there to see it.
      const ours = all.filter(isOfIt).slice(-traced.length);
      expect(traced.length, `${name}: ${JSON.stringify(bars)}`).toBeGreaterThanOrEqual(50);
      // Where the kernel could not read a string instruction, we have its access, at that address.
      const comparable = ours.map((access, i) =>
        traced[i]?.isUnknown === true ? `0x${access.address.toString(16)}` : access.words,
      );
      const expected = traced.map((access) => access.words);
      expect(firstDifference(comparable, expected), `${name} on QEMU ${version}`).toBeUndefined();
    }
    // And all together in the same order.
    const ours = all.slice(-theirs.length).map(({ address }) => address);
    expect(ours).toEqual(theirs.map(({ address }) => address));
    expect(theirs.filter(({ isUnknown }) => isUnknown).length).toBeGreaterThan(1000);
  });
});

test('a guest of another architecture: aarch64, with a network card', async () => {
  makePlugin();
  await using place = new Workplace();
  const qemu = execFileSync(scriptPath('fetch-qemu.sh'), ['11.1', 'aarch64'], {
    encoding: 'utf8',
    stdio: 'pipe',
  }).trim();
  const [elf = ''] = await scriptLines('guests/hammer-arm.sh');
  const { status, stderr } = await place.cli([
    ...words('record --source plugin --device dut -o arm.mmiotrace --'),
    qemu,
    ...words('-machine virt,highmem=off -accel tcg -cpu cortex-a53 -m 64 -nodefaults'),
    ...words('-display none -no-reboot -device e1000e,addr=4,id=dut,romfile= -kernel'),
    elf,
  ]);
  expect(status, stderr).toBe(0);
  const accesses = tracedIn(place.text('arm.mmiotrace')).map((access) => access.words);
  const [, , , writer = ''] = accesses[0]?.split(' ').slice(1) ?? [];
  const pc = parseInt(writer, 16);
  // The load comes right behind the store, in the guest's code.
  const expected = Array.from({ length: 10_000 }, (_, i) => [
    `W 4 0x10105408 0x${i.toString(16)} 0x${pc.toString(16)}`,
    `R 4 0x10105408 0x${i.toString(16)} 0x${(pc + 4).toString(16)}`,
  ]).flat();
  expect(firstDifference(accesses, expected)).toBeUndefined();
  expect(pc).toBeGreaterThanOrEqual(0x40080000);
  expect(pc).toBeLessThan(0x40081000);
});
