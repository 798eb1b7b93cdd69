import { beforeAll, describe, expect, test } from 'vitest';
import { accessesOf, firstDifference } from '../support/access-lines.ts';
import type { CliResult } from '../support/cli.ts';
import { Lab, type LabPlace, l2Guest, type L2Task, PASSED_THROUGH } from '../support/lab.ts';

/*
 * A card passed through to a guest under KVM with vfio-pci, for real but for the hardware: what we
 * record is what the guest says it did.
 */

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.start();
  await lab.shell(`
    modprobe vfio-pci
    cd /sys/bus/pci/devices/${PASSED_THROUGH}
    echo vfio-pci >driver_override
    [ ! -e driver ] || echo ${PASSED_THROUGH} >driver/unbind
    echo ${PASSED_THROUGH} >/sys/bus/pci/drivers_probe
    [ "$(basename "$(readlink driver)")" = vfio-pci ]`);
});

interface Recorded {
  readonly place: LabPlace;
  readonly result: CliResult;
}

/** Has L2 do its tasks, and records them into ours.mmiotrace and ours.ndjson. */
async function record(processors: number, tasks: readonly L2Task[]): Promise<Recorded> {
  const place = lab.place();
  const guest = await l2Guest({ tasks, processors, out: place });
  const outputs = ['ours.mmiotrace', 'ours.ndjson'].flatMap((name) => ['-o', place.path(name)]);
  const result = await lab.cli(['record', ...outputs, '--', ...guest]);
  return { place, result };
}

/** Of a recording without any loss, but for the MSI-X table. */
function expectWhole({ result }: Recorded): void {
  expect(result.stderr).toContain('loss      none');
  expect(result.stderr.match(/.*NOT complete.*/g)).toEqual([
    'coverage  NOT complete: nic0 BAR3+0x0, 80 B are answered by QEMU',
  ]);
  expect(result.status, result.stderr).toBe(3);
}

const MSIX_TABLE_BYTES = 0x50;

/** Without the MSI-X table at the start of BAR3: QEMU answers it itself, and vfio never sees it. */
function withoutMsixTable(accesses: readonly string[], log: string): string[] {
  const bar3 = /^PCIDEV \S+ 808610d3 \S+ \S+ \S+ \S+ (\S+) /m.exec(log)?.[1];
  const start = parseInt(bar3 ?? '', 16);
  expect(start).toBeGreaterThan(0);
  return accesses.filter((access) => {
    const address = parseInt(access.split(' ')[2] ?? '', 16);
    return address < start || address >= start + MSIX_TABLE_BYTES;
  });
}

describe("a driver, against the guest kernel's own mmiotrace", () => {
  test('every access is the same, in op, width, address, value and order', async () => {
    const recorded = await record(1, ['oracle']);
    expectWhole(recorded);
    const kernel = recorded.place.text('trace');
    const theirs = withoutMsixTable(accessesOf(kernel), kernel);
    const ours = accessesOf(recorded.place.text('ours.mmiotrace'));
    expect(theirs.length).toBeGreaterThanOrEqual(1000);
    expect(firstDifference(ours, theirs)).toBeUndefined();
  });
});

describe('programs that map the registers', () => {
  const COUNT = 2000;
  let recorded: Recorded;
  /** What is recorded of BAR0, as `cpu`, offset and an access line. */
  let accesses: { cpu: number; offset: number; line: string }[];

  beforeAll(async () => {
    recorded = await record(2, ['userspace', 'hammer']);
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
