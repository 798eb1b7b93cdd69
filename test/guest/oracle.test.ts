import { describe, expect, test } from 'vitest';
import { accessesOf, firstDifference } from '../support/access-lines.ts';
import { Workplace } from '../support/cli.ts';
import { oracleDrivers, oracleGuest, readGuestTrace } from '../support/oracle.ts';

// Under a Linux whose own mmiotrace traces the driver: what we write is what it writes.
describe.each(oracleDrivers)("$name, against the guest kernel's own mmiotrace", (driver) => {
  test('every access is the same, in op, width, address, value and order', async () => {
    await using place = new Workplace();
    const traceFile = place.path('guest-trace');
    const guest = await oracleGuest(driver, traceFile);
    const outputs = ['-o', 'ours.mmiotrace', '-o', 'ours.mmiocap'];
    const { status, stderr } = await place.cli(
      ['record', '--device', driver.qemuId, ...outputs, '--', ...guest],
      { timeoutMs: 120_000 },
    );
    expect(status, stderr).toBe(0);
    expect(stderr).toContain('loss      none');
    expect(stderr).not.toContain('INCOMPLETE');

    const text = place.text('ours.mmiotrace');
    const kernel = await readGuestTrace(traceFile);
    const theirs = accessesOf(kernel);
    const all = accessesOf(text);
    // Firmware drives the device, too, before the guest's tracer is there to see it.
    const ours = all.slice(all.length - theirs.length);
    expect(theirs.length).toBeGreaterThanOrEqual(50);
    expect(firstDifference(ours, theirs)).toBeUndefined();

    // The BARs are where the guest's kernel has them. It counts interrupts in its own way, and knows
    // the driver.
    const devices = (log: string) =>
      log
        .split('\n')
        .filter((line) => line.startsWith('PCIDEV ') && line.split(' ')[2] === driver.pciId)
        .map((line) => line.split(' ').toSpliced(3, 1).slice(0, -1).join(' '));
    expect(devices(kernel)).toHaveLength(1);
    expect(new Set(devices(text))).toEqual(new Set(devices(kernel)));

    // The kernel maps parts of the BAR; they lie in what we map.
    const mapped = (log: string) =>
      [...log.matchAll(/^MAP \S+ \d+ 0x([0-9a-f]+) \S+ 0x([0-9a-f]+)/gm)].map(
        ([, start = '', length = '']) => ({
          start: parseInt(start, 16),
          end: parseInt(start, 16) + parseInt(length, 16),
        }),
      );
    const windows = mapped(text);
    expect(mapped(kernel).length).toBeGreaterThan(0);
    for (const part of mapped(kernel)) {
      const holds = windows.some(({ start, end }) => start <= part.start && part.end <= end);
      expect(holds, JSON.stringify({ part, windows })).toBe(true);
    }
    const fields = devices(kernel)[0]?.split(' ') ?? [];
    const [start = NaN, size = NaN] = [fields[3], fields[10]].map((field) =>
      parseInt(field ?? '', 16),
    );
    // The lowest bits of a start are flags.
    const bar0 = { start: start - (start % 16), end: start - (start % 16) + size };
    expect(windows).toContainEqual(bar0);

    const converted = await place.cli(['convert', 'ours.mmiocap', '-o', '-']);
    expect(converted.status, converted.stderr).toBe(0);
    expect(converted.stdout).toBe(text);
  });
});
