import { describe, expect, test } from 'vitest';
import { firstDifference } from '../support/access-lines.ts';
import { recordL2, type L2Recording } from '../support/l2-recording.ts';
import { Lab, type LabPlace, l2Guest, type L2Task, PASSED_THROUGH } from '../support/lab.ts';

/*
 * KVM's tracepoints, on a host with AMD's virtualization (in the lab all of it is emulated): the
 * program counters of a recording, and a recording from them alone.
 */

/** As `recordL2`, of which all was recorded; the kernel's mmiotrace tells program counters, too. */
async function record(
  options: readonly string[],
  processors: number,
  tasks: readonly L2Task[],
): Promise<L2Recording> {
  const kernelWords = 'mmiotrace.trace_pc=1';
  const recorded = await recordL2({ record: options, processors, tasks, kernelWords });
  expect(recorded.result.stderr).toContain('loss      none');
  return recorded;
}

/** As `R 4 0xfeb80000 0x1 0xffffffffc0001234`: op, width, address, value, program counter. */
function accessesWithPc(log: string): string[] {
  return [...log.matchAll(/^([RW] \d) \S+ -?\d+ (0x[0-9a-f]+ 0x[0-9a-f]+ 0x[0-9a-f]+) /gm)].map(
    ([, op = '', rest = '']) => `${op} ${rest}`,
  );
}

const pcOf = (access: string): bigint => BigInt(access.split(' ')[4] ?? '0');

interface Access {
  readonly cpu: number;
  readonly offset: number;
  readonly pc: bigint;
  readonly line: string;
}

/** What is recorded of BAR0. */
function bar0Of(place: LabPlace): Access[] {
  return place
    .text('ours.ndjson')
    .split('\n')
    .filter((line) => line.includes('"region":"BAR0"') && line.includes('"access"'))
    .map((line) => {
      const { cpu, op, width, offset, value, pc } = JSON.parse(line);
      const text = `${op} ${width} ${offset} ${value}`;
      return { cpu, offset: parseInt(offset, 16), pc: BigInt(pc ?? 0), line: text };
    });
}

const COUNT = 2000;
const counted = (offset: string) =>
  Array.from({ length: COUNT }, (_, i) => `0x${(i + 1).toString(16)}`).flatMap((value) => [
    `W 4 ${offset} ${value}`,
    `R 4 ${offset} ${value}`,
  ]);

/** Each value of the two processors once, in order, of its vCPU, from the program's own code. */
function expectHammered(place: LabPlace): void {
  expect(place.text('hammer'), place.text('console')).toContain(`hammered ${COUNT}\n`);
  const accesses = bar0Of(place);
  const [, from = '', to = ''] = /^text (0x\w+) (0x\w+)$/m.exec(place.text('hammer')) ?? [];
  for (const [cpu, offset] of [0x5200, 0x5300].entries()) {
    const of = accesses.filter((access) => access.offset === offset);
    const expected = counted(`0x${offset.toString(16)}`);
    expect(
      firstDifference(
        of.map(({ line }) => line),
        expected,
      ),
    ).toBeUndefined();
    expect(new Set(of.map((access) => access.cpu))).toEqual(new Set([cpu]));
    const outside = of.filter(({ pc }) => pc < BigInt(from) || pc >= BigInt(to));
    expect(outside).toEqual([]);
    // One instruction writes, one reads.
    expect(new Set(of.map(({ pc }) => pc)).size).toBe(2);
  }
}

describe('record --pc', () => {
  test("of a driver: each PC is the one of the guest kernel's own mmiotrace", async () => {
    const { place, result } = await record(['--pc'], 1, ['oracle']);
    expect(result.stderr).toMatch(/program counters: of \d+ accesses; 0 are without/);
    const ours = accessesWithPc(place.text('ours.mmiotrace'));
    const kernel = place.text('trace');
    const theirs = accessesWithPc(kernel);
    expect(theirs.length).toBeGreaterThanOrEqual(1000);
    expect(firstDifference(ours, theirs)).toBeUndefined();

    // And they are what they should be: code of the driver, or of the kernel where it reads for it.
    const [, size, base] = /^e1000e (\d+) .* (0x[0-9a-f]+)/m.exec(place.text('modules')) ?? [];
    const symbol = (name: string) =>
      BigInt(`0x${new RegExp(`^([0-9a-f]+) . ${name}$`, 'm').exec(place.text('symbols'))?.[1]}`);
    const module = { from: BigInt(base ?? 0), to: BigInt(base ?? 0) + BigInt(size ?? 0) };
    const kernelText = { from: symbol('_stext'), to: symbol('_etext') };
    const lies = (pc: bigint, { from, to }: typeof module) => pc >= from && pc < to;
    const pcs = ours.map(pcOf);
    expect(pcs.filter((pc) => !lies(pc, module) && !lies(pc, kernelText))).toEqual([]);
    expect(pcs.filter((pc) => lies(pc, module)).length).toBeGreaterThan(500);
  });

  test('of two processors at once', async () => {
    const { place, result } = await record(['--pc'], 2, ['hammer']);
    expect(result.stderr).toMatch(/program counters: of \d+ accesses; 0 are without/);
    expectHammered(place);
  });
});

describe('record --source kvm', () => {
  test('has every access of programs, with vCPU and PC', async () => {
    const { place } = await record(['--source', 'kvm'], 2, ['userspace', 'hammer']);
    const hammered = new Set([0x5200, 0x5300]);
    const ours = bar0Of(place).filter(({ offset }) => !hammered.has(offset));
    const theirs = place.text('userspace').match(/^[RW] .*$/gm) ?? [];
    expect(theirs).toContain('W 8 0x5388 0x1122334455667788');
    expect(ours.map(({ line }) => line)).toEqual(theirs);
    expectHammered(place);
  });
});

test('what a recorder that was killed has left in tracefs, the next removes', async () => {
  const lab = await Lab.start();
  await lab.shell(`node dist/cli/main.js bind ${PASSED_THROUGH}`);
  const place = lab.place();
  const guest = await l2Guest({ tasks: ['userspace'], processors: 1, out: place });
  const words = guest.map((word) => `'${word}'`).join(' ');
  const said = await lab.shell(`
    instances() { ls /sys/kernel/tracing/instances; }
    node dist/cli/main.js record --pc -o ${place.path('a.mmiotrace')} -- ${words} 2>${place.path('said')} &
    recorder=$!
    until grep -q '^recording' ${place.path('said')}; do sleep 0.1; done
    kill -9 $recorder
    echo "left: $(instances)"
    session=$(sed -n 's/^recording \\([^ ]*\\) .*/\\1/p' ${place.path('said')})
    kill "$(sed 's/.*"qemu":{"pid":\\([0-9]*\\).*/\\1/' /dev/shm/mmiobridge-0/$session/session.json)"
    rm -f ${place.path('said')}
    node dist/cli/main.js record --pc --duration 1 -o ${place.path('b.mmiotrace')} -- ${words} 2>&1 | sed 's/^/said: /'
    echo "then: $(instances)"`);
  expect(said).toMatch(/^left: mmiobridge-\d+-\d+$/m);
  expect(said, said).toMatch(/^then: $/m);
});
