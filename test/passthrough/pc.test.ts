import { beforeAll, describe, expect, test } from 'vitest';
import { firstDifference } from '../support/access-lines.ts';
import { expectWhole, recordL2, type L2Recording } from '../support/l2-recording.ts';
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

/** The registers that the two processors hammer. */
const HAMMERED = [0x5200, 0x5300];

/** What is recorded beside the hammering, and what the program says that it did; one access of it. */
function userspaceOf(place: LabPlace, accesses: readonly Access[]) {
  const ours = accesses.filter(({ offset }) => !HAMMERED.includes(offset));
  const theirs = place.text('userspace').match(/^[RW] .*$/gm) ?? [];
  return { ours: ours.map(({ line }) => line), theirs };
}
const WIDE_WRITE = 'W 8 0x5388 0x1122334455667788';

/** Each value of the two processors once, in order, of its vCPU, from the program's own code. */
function expectHammered(place: LabPlace, accesses: readonly Access[]): void {
  expect(place.text('hammer'), place.text('console')).toContain(`hammered ${COUNT}\n`);
  const [, from = '', to = ''] = /^text (0x\w+) (0x\w+)$/m.exec(place.text('hammer')) ?? [];
  for (const [cpu, offset] of HAMMERED.entries()) {
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

  describe('of programs that map the registers', () => {
    let recorded: L2Recording;
    let accesses: readonly Access[];
    beforeAll(async () => {
      recorded = await record(['--pc'], 2, ['userspace', 'hammer']);
      accesses = bar0Of(recorded.place);
    });

    test('each access is there as the program made it, 1 to 8 bytes wide', () => {
      expectWhole(recorded);
      const { ours, theirs } = userspaceOf(recorded.place, accesses);
      expect(theirs).toContain(WIDE_WRITE);
      expect(ours).toEqual(theirs);
    });

    test('of two processors at once every value is there, in the order of each, with vCPU and PC', () => {
      expect(recorded.result.stderr).toMatch(/program counters: of \d+ accesses; 0 are without/);
      expectHammered(recorded.place, accesses);
      // They did run at the same time.
      const hammering = accesses.filter(({ offset }) => HAMMERED.includes(offset));
      const turns = hammering.filter(({ cpu }, i) => i > 0 && cpu !== hammering[i - 1]?.cpu);
      expect(turns.length).toBeGreaterThan(10);
    });
  });
});

describe('record --source kvm', () => {
  test('has every access of programs, with vCPU and PC', async () => {
    const { place } = await record(['--source', 'kvm'], 2, ['userspace', 'hammer']);
    const accesses = bar0Of(place);
    const { ours, theirs } = userspaceOf(place, accesses);
    expect(theirs).toContain(WIDE_WRITE);
    expect(ours).toEqual(theirs);
    expectHammered(place, accesses);
  });
});

test('tracing that somebody switches off is on again, and what was missed is a loss', async () => {
  const lab = await Lab.start();
  await lab.shell(`node dist/cli/main.js bind ${PASSED_THROUGH}`);
  const place = lab.place();
  const guest = await l2Guest({ tasks: ['userspace'], processors: 1, out: place });
  const words = guest.map((word) => `'${word}'`).join(' ');
  const said = await lab.shell(`
    said=${place.path('said')}
    node dist/cli/main.js record --source kvm -o ${place.path('a.mmiotrace')} -- ${words} 2>$said &
    recorder=$!
    until grep -q '^recording' $said; do sleep 0.1; done
    for on in /sys/kernel/tracing/instances/mmiobridge-*/tracing_on; do echo 0 >$on; done
    until grep -q 'put back' $said || ! kill -0 $recorder; do sleep 0.1; done
    echo "on again: $(cat /sys/kernel/tracing/instances/mmiobridge-*/tracing_on)"
    kill -INT $recorder
    wait $recorder || echo "status $?"
    cat $said`);
  expect(said).toMatch(/^on again: 1$/m);
  expect(said).toMatch(/^status 130$/m);
  expect(said).toContain('tracing was switched off (tracing_on), by somebody else: accesses of');
  expect(said).toMatch(/^mmiobridge: the recording is INCOMPLETE: loss in 1 place/m);
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
