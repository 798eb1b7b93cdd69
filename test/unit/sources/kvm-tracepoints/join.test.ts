import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { NO_CPU } from '../../../../src/model/access-batch.ts';
import { Kind, KvmEvents } from '../../../../src/sources/kvm-tracepoints/events.ts';
import { PcJoin, type LoggedAccess } from '../../../../src/sources/kvm-tracepoints/join.ts';

/** A record of KVM's: time, thread, kind, width, address, value. */
type Row = readonly [
  t: number,
  thread: number,
  kind: number,
  width: number,
  address: number,
  value: bigint,
];

const LOW = 0xffff_ffffn;
const GPA = 0xe100_0000;

interface Round {
  readonly rows: readonly Row[];
  readonly untilNs: number;
}

/** A join that gets these rounds when it asks for more. */
function joined(
  rounds: Round[],
  options: { readonly vcpus?: number; readonly aligned?: boolean; readonly offsetNs?: number } = {},
): PcJoin {
  const vcpus = Array.from({ length: options.vcpus ?? 1 }, (_, i) => [100 + i, i] as const);
  const join = new PcJoin({
    vcpuOfThread: new Map(vcpus),
    aligned: options.aligned ?? true,
    isRecorded: (address) => address >= GPA && address < GPA + 0x1000,
    more: () => {
      const next = rounds.shift();
      if (next === undefined) return false;
      const events = new KvmEvents();
      for (const [t, thread, kind, width, address, value] of next.rows) {
        events.put([t, thread, kind, width, 1, address, Number(value & LOW), Number(value >> 32n)]);
      }
      join.take(events, next.untilNs);
      return true;
    },
  });
  join.clockOffsetNs = options.offsetNs ?? 0;
  return join;
}

const at = (t: number, rip: number, thread = 100): Row => [
  t,
  thread,
  Kind.instruction,
  0,
  0,
  BigInt(rip),
];
const write = (t: number, value: number, address = GPA + 4, thread = 100, width = 4): Row => {
  return [t, thread, Kind.write, width, address, BigInt(value)];
};
const asked = (t: number, address = GPA + 4, thread = 100, width = 4): Row => {
  return [t, thread, Kind.readAsked, width, address, 0n];
};
const answer = (t: number, address = GPA + 4, thread = 100): Row => {
  return [t, thread, Kind.read, 4, address, 9n];
};

function line(
  op: 'R' | 'W',
  value: number | bigint,
  more: Partial<LoggedAccess> = {},
): LoggedAccess {
  const wide = BigInt(value);
  const common = { timeNs: NaN, cpu: 0, width: 4, address: GPA + 4 };
  return { ...common, write: op === 'W', lo: Number(wide & LOW), hi: Number(wide >> 32n), ...more };
}

/** The PCs of lines; 0 where one has no partner. */
const pcs = (join: PcJoin, lines: readonly LoggedAccess[]): number[] =>
  lines.map((access) => (join.join(access) ? join.pcLo : 0));

const all = (rows: readonly Row[]): Round[] => [{ rows, untilNs: 1e12 }];

describe('by order', () => {
  test('each line has the next access that it can be', () => {
    const rows = [
      at(1, 0x10),
      write(2, 7),
      at(3, 0x20),
      asked(4),
      answer(5),
      at(6, 0x30),
      asked(7),
    ];
    const join = joined(all(rows));
    expect(pcs(join, [line('W', 7), line('R', 9), line('R', 9)])).toEqual([0x10, 0x20, 0x30]);
    expect(join.counts).toEqual({ joined: 3, alone: 0, unlogged: 0, losses: 0 });
  });
  test('an access that the log leaves out is stepped over, and counted where it is of a BAR', () => {
    const rows = [
      at(1, 0x10),
      write(2, 1, GPA + 0x100),
      write(3, 2, 0xb8000),
      at(4, 0x20),
      write(5, 3),
    ];
    const join = joined(all(rows));
    expect(pcs(join, [line('W', 3)])).toEqual([0x20]);
    expect(join.counts).toMatchObject({ unlogged: 1 });
  });
  test('a line that is nobody else has no PC, and takes nobody else its partner', () => {
    const join = joined(all([at(1, 0x10), write(2, 1), at(3, 0x20), write(4, 2)]));
    expect(pcs(join, [line('W', 99), line('W', 1), line('W', 2)])).toEqual([0, 0x10, 0x20]);
    expect(join.counts).toMatchObject({ joined: 2, alone: 1 });
  });
  test('one access of eight bytes can be two lines of four, or eight of one', () => {
    const wide: Row = [2, 100, Kind.write, 8, GPA, 0x8877_6655_4433_2211n];
    const halves = [line('W', 0x4433_2211, { address: GPA }), line('W', 0x8877_6655)];
    expect(pcs(joined(all([at(1, 0x10), wide])), halves)).toEqual([0x10, 0x10]);
    const bytes = Array.from({ length: 8 }, (_, i) =>
      line('W', 0x11 * (i + 1), { width: 1, address: GPA + i }),
    );
    expect(pcs(joined(all([at(1, 0x10), wide])), bytes)).toEqual(bytes.map(() => 0x10));
    // The second half is another's.
    const rows = [at(1, 0x10), wide, at(3, 0x20), write(4, 5)];
    const other = [line('W', 0x4433_2211, { address: GPA }), line('W', 5)];
    expect(pcs(joined(all(rows)), other)).toEqual([0x10, 0x20]);
  });
  test('all accesses of a string instruction have its PC', () => {
    const rows = [at(1, 0x10), asked(2), answer(3), asked(4, GPA + 8), answer(5, GPA + 8)];
    expect(pcs(joined(all(rows)), [line('R', 0), line('R', 0, { address: GPA + 8 })])).toEqual([
      0x10, 0x10,
    ]);
  });
  test('an access before whose instruction the trace began has no PC', () => {
    const join = joined(all([write(2, 1), at(3, 0x20), write(4, 2)]));
    expect(pcs(join, [line('W', 1), line('W', 2)])).toEqual([0, 0x20]);
  });
  test("vCPUs do not get in each other's way", () => {
    const rows = [at(1, 0x10), at(1, 0x20, 101), asked(2), asked(2, GPA + 4, 101)];
    const join = joined(all(rows), { vcpus: 2 });
    expect(pcs(join, [line('R', 1, { cpu: 1 }), line('R', 1)])).toEqual([0x20, 0x10]);
  });
  test('at ports a read is known by its instruction', () => {
    const rows: Row[] = [
      [1, 100, Kind.portInstruction, 2, 0xc004, 0x50n],
      [2, 100, Kind.portRead, 2, 0xc004, 7n],
    ];
    expect(pcs(joined(all(rows)), [line('R', 7, { width: 2, address: 0xc004 })])).toEqual([0x50]);
  });
});

describe('where records are lost', () => {
  const us = 1000;
  const before = [
    at(1 * us, 0x10),
    asked(2 * us),
    answer(11 * us),
    at(21 * us, 0x20),
    asked(22 * us),
  ];
  const lost: Row = [100 * us, 0, Kind.lost, 0, 0, 5n];
  const after = [
    at(120 * us, 0x30),
    asked(121 * us),
    answer(130 * us),
    at(140 * us, 0x40),
    asked(141 * us),
  ];
  const rounds = () => [
    { rows: before, untilNs: 50 * us },
    { rows: [lost, ...after], untilNs: 200 * us },
  ];
  const lineAt = (time: number) => line('R', 9, { timeNs: time * us });
  test('the clock tells which line is whose; those of lost accesses have no PC', () => {
    const join = joined(rounds());
    expect(pcs(join, [5, 25, 60, 90, 125, 145].map(lineAt))).toEqual([
      0x10, 0x20, 0, 0, 0x30, 0x40,
    ]);
    expect(join.counts).toMatchObject({ joined: 4, alone: 2, losses: 1 });
  });
  test('without time stamps there is no PC until all is quiet', () => {
    const join = joined(rounds());
    expect(pcs(join, [line('R', 9), line('R', 9), line('R', 9), line('R', 9)])).toEqual([
      0x10, 0x20, 0, 0,
    ]);
  });
  test('a trace that begins in the middle is joined by the clock', () => {
    const join = joined(all(before), { aligned: false, offsetNs: 7000 });
    // The lines of the log begin with the second access.
    expect(pcs(join, [line('R', 9, { timeNs: 25 * us + 7000 })])).toEqual([0x20]);
  });
  test('what two accesses could be has no PC', () => {
    const rows = [
      at(1000, 0x10),
      asked(2000),
      answer(2500),
      at(2600, 0x20),
      asked(3000),
      answer(3500),
    ];
    const join = joined(all(rows), { aligned: false });
    expect(pcs(join, [line('R', 9, { timeNs: 2000 })])).toEqual([0]);
  });
});

describe('when the log has been read to its end', () => {
  test('what is left has no line, and order holds again', () => {
    const more = { rows: [at(50, 0x30), asked(51)], untilNs: 60 };
    const rounds = [{ rows: [at(1, 0x10), asked(2), answer(3)], untilNs: 40 }];
    const join = joined(rounds, { aligned: false });
    // A line without a stamp has all that there is handed over.
    expect(join.join(line('W', 1))).toBe(false);
    join.caughtUp();
    rounds.push(more);
    expect(pcs(join, [line('R', 9)])).toEqual([0x30]);
  });
  test('what QEMU is at right now may still come', () => {
    const join = joined(all([at(1, 0x10), write(2, 1), at(3, 0x20), write(4, 2)]));
    expect(pcs(join, [line('W', 9)])).toEqual([0]);
    join.caughtUp();
    expect(join.counts).toMatchObject({ unlogged: 1 });
    expect(pcs(join, [line('W', 2)])).toEqual([0x20]);
  });
});

describe('where the log names no thread', () => {
  const us = 1000;
  const rows = [
    at(1 * us, 0x10),
    asked(2 * us),
    at(3 * us, 0x20, 101),
    write(4 * us, 5, GPA + 4, 101),
    answer(10 * us),
    at(30 * us, 0x30),
    asked(31 * us),
    at(31 * us, 0x40, 101),
    asked(31 * us, GPA + 4, 101),
  ];
  const lineAt = (op: 'R' | 'W', time: number, value: number) =>
    line(op, value, { cpu: NO_CPU, timeNs: time * us });
  test('the one vCPU that it can be of is told, too', () => {
    const join = joined(all(rows), { vcpus: 2 });
    expect(join.join(lineAt('W', 6, 5))).toBe(true);
    expect([join.pcLo, join.cpu]).toEqual([0x20, 1]);
    expect(join.join(lineAt('R', 7, 9))).toBe(true);
    expect([join.pcLo, join.cpu]).toEqual([0x10, 0]);
  });
  test('of two there is neither PC nor vCPU', () => {
    const join = joined(all(rows), { vcpus: 2 });
    join.join(lineAt('R', 7, 9));
    expect(join.join(lineAt('R', 36, 9))).toBe(false);
    expect([join.pcLo, join.cpu]).toEqual([0, NO_CPU]);
  });
  test('of a VM with one vCPU it is that one', () => {
    const join = joined(all([at(1, 0x10), asked(2)]));
    expect(join.join(line('R', 9, { cpu: NO_CPU }))).toBe(true);
    expect(join.cpu).toBe(0);
  });
});

describe('never a guess', () => {
  /** What each of two vCPUs does: op, register, value; its PC is its own number. */
  const act = fc.record({
    cpu: fc.nat(1),
    write: fc.boolean(),
    register: fc.nat(2),
    value: fc.nat(1),
    logged: fc.boolean(),
    lost: fc.boolean(),
    gapUs: fc.integer({ min: 1, max: 40 }),
  });
  test('a PC is right or 0, whatever is lost, left out, cut or without a thread', () => {
    fc.assert(
      fc.property(
        fc.array(act, { maxLength: 80 }),
        fc.record({
          aligned: fc.boolean(),
          threads: fc.boolean(),
          lose: fc.boolean(),
          cut: fc.nat(80),
        }),
        (acts, how) => {
          let now = 10_000;
          const rounds: { rows: Row[]; untilNs: number }[] = [];
          const lines: { access: LoggedAccess; pc: number; cpu: number }[] = [];
          let rows: Row[] = [];
          let missing = false;
          for (const [
            i,
            { cpu, write: isWrite, register, value, logged, lost, gapUs },
          ] of acts.entries()) {
            const pc = i + 1;
            // Registers that the log has no line of are other ones.
            const address = GPA + 4 * register + (logged ? 0 : 0x800);
            const thread = 100 + cpu;
            const stampNs = Math.floor((now + 400) / 1000) * 1000;
            if (how.lose && lost) missing = true;
            else {
              if (missing) rows.push([now, 0, Kind.lost, 0, 0, 1n]);
              missing = false;
              rows.push(at(now + (missing ? 0 : 1), pc, thread));
              if (isWrite) rows.push(write(now + 2, value, address, thread));
              else rows.push(asked(now + 2, address, thread), answer(now + 900, address, thread));
            }
            if (logged && (how.aligned || i >= how.cut)) {
              const access = line(isWrite ? 'W' : 'R', isWrite ? value : 9, {
                cpu: how.threads ? cpu : NO_CPU,
                timeNs: stampNs,
                address,
              });
              lines.push({ access, pc, cpu });
            }
            now += gapUs * 1000;
            // All until its end has been read with a round: what is missing shows in the same.
            if (i % 7 === 6 && !missing) {
              rounds.push({ rows, untilNs: now - 1 });
              rows = [];
            }
          }
          rounds.push({
            rows: missing ? [...rows, [now, 0, Kind.lost, 0, 0, 1n]] : rows,
            untilNs: now + 1e6,
          });
          const join = joined(rounds, { vcpus: 2, aligned: how.aligned });
          let found = 0;
          for (const { access, pc, cpu } of lines) {
            if (!join.join(access)) continue;
            found++;
            expect([join.pcLo, join.cpu]).toEqual([pc, cpu]);
          }
          // Where nothing is missing, all are found.
          const least = !how.lose && how.aligned && how.threads ? lines.length : 0;
          expect(found).toBeGreaterThanOrEqual(least);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
