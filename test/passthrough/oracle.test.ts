import { beforeAll, describe, expect, test } from 'vitest';
import { accessesOf, firstDifference } from '../support/access-lines.ts';
import { recordL2, type L2Recording } from '../support/l2-recording.ts';

/*
 * A card passed through to a guest under KVM with vfio-pci, for real but for the hardware: what we
 * record is what the guest says it did.
 */

function expectWhole({ result }: L2Recording): void {
  expect(result.stderr).toContain('loss      none');
  expect(result.stderr).toContain(
    'coverage  complete: every access to nic0 BAR0, nic0 BAR1, nic0 BAR2, nic0 BAR3 is trapped',
  );
  expect(result.status, result.stderr).toBe(0);
}

describe("a driver, against the guest kernel's own mmiotrace", () => {
  test('every access is the same, in op, width, address, value and order', async () => {
    const recorded = await recordL2({ processors: 1, tasks: ['oracle'] });
    expectWhole(recorded);
    const kernel = recorded.place.text('trace');
    const theirs = accessesOf(kernel);
    const ours = accessesOf(recorded.place.text('ours.mmiotrace'));
    expect(theirs.length).toBeGreaterThanOrEqual(1000);
    expect(firstDifference(ours, theirs)).toBeUndefined();
  });
});

describe('BARs that are mapped into the guest because the user wants it so', () => {
  test('are named, and the recording is not complete', async () => {
    const { result, place } = await recordL2({
      processors: 1,
      tasks: ['userspace'],
      card: ',x-no-mmap=off',
    });
    expect(result.status, result.stderr).toBe(3);
    expect(result.stderr).toMatch(
      /^coverage {2}NOT complete: nic0 BAR0\+0x0, 128.0 KiB bypass QEMU/m,
    );
    expect(result.stderr).toMatch(/INCOMPLETE: accesses to nic0 BAR0, .*bypass QEMU$/m);
    expect(result.stderr).toContain('nic0 has x-no-mmap=off: accesses to BARs that are mapped');
    const text = place.text('ours.mmiotrace');
    expect(text).toMatch(/^MARK \S+ mmiobridge: coverage end nic0 BAR0 0x0\+0x20000 bypassed: /m);
    expect(text).toMatch(/^MARK \S+ mmiobridge: end incomplete/m);
  });
});

describe('programs that map the registers', () => {
  const COUNT = 2000;
  let recorded: L2Recording;
  /** What is recorded of BAR0, as `cpu`, offset and an access line. */
  let accesses: { cpu: number; offset: number; line: string }[];

  beforeAll(async () => {
    recorded = await recordL2({ processors: 2, tasks: ['userspace', 'hammer'] });
    accesses = recorded.place
      .text('ours.ndjson')
      .split('\n')
      .filter((line) => line.includes('"region":"BAR0"') && line.includes('"access"'))
      .map((line) => {
        const { cpu, op, width, offset, value } = JSON.parse(line);
        return { cpu, offset: parseInt(offset, 16), line: `${op} ${width} ${offset} ${value}` };
      });
  });

  test('each access is there as the program made it, 1 to 8 bytes wide', () => {
    expectWhole(recorded);
    const theirs = recorded.place.text('userspace').match(/^[RW] .*$/gm) ?? [];
    expect(theirs).toContain('W 8 0x5388 0x1122334455667788');
    const hammered = new Set([0x5200, 0x5300]);
    const ours = accesses.filter(({ offset }) => !hammered.has(offset)).map(({ line }) => line);
    expect(ours).toEqual(theirs);
  });

  test('of two processors at once every value is there, in the order of each, with its vCPU', () => {
    expect(recorded.place.text('hammer')).toContain(`hammered ${COUNT}\n`);
    const counted = (offset: string) =>
      Array.from({ length: COUNT }, (_, i) => `0x${(i + 1).toString(16)}`).flatMap((value) => [
        `W 4 ${offset} ${value}`,
        `R 4 ${offset} ${value}`,
      ]);
    const of = (wanted: number) => accesses.filter(({ offset }) => offset === wanted);
    const [first, second] = [of(0x5200), of(0x5300)];
    const lines = (list: typeof first) => list.map(({ line }) => line);
    expect(firstDifference(lines(first), counted('0x5200'))).toBeUndefined();
    expect(firstDifference(lines(second), counted('0x5300'))).toBeUndefined();
    expect(new Set(first.map(({ cpu }) => cpu))).toEqual(new Set([0]));
    expect(new Set(second.map(({ cpu }) => cpu))).toEqual(new Set([1]));

    // They did run at the same time.
    const hammering = accesses.filter(({ offset }) => offset === 0x5200 || offset === 0x5300);
    const turns = hammering.filter(({ cpu }, i) => i > 0 && cpu !== hammering[i - 1]?.cpu);
    expect(turns.length).toBeGreaterThan(10);
  });
});
