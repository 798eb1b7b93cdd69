/** Regions that the guest reaches in two places: QEMU's log prints one address for both. */
import { expect, test } from 'vitest';
import { accessesOf } from '../support/access-lines.ts';
import { Workplace } from '../support/cli.ts';
import { HAMMER_GPA, HAMMER_SLOT, hammerGuest } from '../support/guests.ts';

test('intel-hda: accesses are where drivers make them, and not in the mirror behind it', async () => {
  await using place = new Workplace();
  const device = ['-device', `intel-hda,id=dut,addr=${HAMMER_SLOT}`];
  // CORBLBASE keeps what is written to it, but for its low bits.
  const at = { writeOffset: 0x40, readOffset: 0x40 };
  const argv = await hammerGuest({ iterations: 100_000, device, ...at });
  const args = ['record', '--device', 'dut', '-o', 'x.mmiotrace', '--', ...argv];
  const { status, stderr } = await place.cli(args);
  expect(status, stderr).toBe(0);
  const text = place.text('x.mmiotrace');
  const gpa = `0x${(HAMMER_GPA + 0x40).toString(16)}`;
  const places = new Set(accessesOf(text).map((line) => line.split(' ')[2]));
  expect([...places]).toEqual([gpa]);
  expect(text).toMatch(/MAP \S+ 1 0xe1000000 0x0 0x4000 0x0 0$/m);
  expect(text).toContain(
    "coverage end note: QEMU's log does not tell accesses to dut BAR0+0x2000 from those to dut BAR0+0x0: all are taken for the latter",
  );
  expect(stderr).toContain('accesses  200,000 (100,000 reads, 100,000 writes)');
});
