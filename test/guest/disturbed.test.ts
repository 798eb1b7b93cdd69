/**
 * Somebody else has a hand in the QEMU that is recorded: what is missing then is said, with the
 * times between which it is, and the recording goes on.
 */
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  Bench,
  countsIn,
  countsInLog,
  faultsIn,
  openFiles,
  stateOf,
  steadyHammer,
  type Count,
  type Guest,
  type Run,
} from '../support/attach.ts';
import { hammerGuest } from '../support/guests.ts';
import { until } from '../support/soon.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.open();
});
afterEach(async () => {
  await bench.close();
});

async function attach(guest: Guest, ...more: readonly string[]): Promise<Run> {
  const run = await bench.record('--qmp', guest.socket, '--device', 'dut', ...more);
  await until('accesses come', async () => (await counted()) > 200);
  return run;
}

async function counted(): Promise<number> {
  const [only] = JSON.parse(await bench.answer('status', '--json')) as {
    status?: { counters: { writes: number } };
  }[];
  return only?.status?.counters.writes ?? 0;
}

async function says(run: Run, words: string): Promise<void> {
  await until(
    () => `it says ${words}: ${run.stderr}`,
    () => run.stderr.includes(words),
  );
}

/** Lets accesses come again, and ends it. */
async function finish(run: Run): Promise<void> {
  const before = await counted();
  await until(
    () => `accesses come again: ${run.stderr}`,
    async () => (await counted()) > before + 200,
  );
  run.child.kill('SIGINT');
  expect(await run.code(), run.stderr).toBe(130);
}

/**
 * Where the counter jumps accesses are missing: there is a loss there, from before the jump until it
 * is said that accesses come again. Events go off and on one by one, so that a loss has more than one.
 *
 * @returns how many are missing
 */
function missingInLoss(run: Run): number {
  const text = bench.read('x.mmiotrace');
  const timesOf = (words: RegExp) => [...text.matchAll(words)].map(([, sec]) => Number(sec));
  const losses = timesOf(/^MARK (\S+) Lost an unknown number of events within \S+ s/gm);
  const ends = timesOf(/^MARK (\S+) mmiobridge: accesses come again/gm);
  expect([losses.length, ends.length]).toEqual([1, 1]);
  const [from = NaN] = losses;
  const [to = NaN] = ends;
  const counts = countsIn(text);
  let missing = 0;
  for (const [at, now] of counts.entries()) {
    const before = counts[at - 1];
    if (before === undefined || faultsIn([before, now]).length === 0) continue;
    missing += placeOf(now) - placeOf(before) - 1;
    expect(before.timeSec).toBeLessThan(to + 0.001);
    expect(now.timeSec).toBeGreaterThan(from - 0.001);
    // One that stands still has its last access long before, and its first long behind.
    if (run.stderr.includes('the guest is paused')) continue;
    expect(before.timeSec).toBeGreaterThan(from - 0.001);
    // A busy machine may let the guest run late.
    expect(now.timeSec).toBeLessThan(to + 2);
  }
  expect(text).toMatch(/mmiobridge: end incomplete, .*, lost at least 0, in 1 places/);
  return missing;
}

/** The how manieth access of the guest's `write n, read n, write n+1, …` it is. */
const placeOf = ({ write, value }: Count): number => 2 * value + (write ? 0 : 1);

/** What a QEMU that logged elsewhere wrote there. */
const wentElsewhere = (): number => countsInLog(bench.read('elsewhere.log')).length;

describe('while it is recorded', () => {
  test('trace events that are switched off are on again, and what was missed is a loss', async () => {
    const guest = await bench.guest(await steadyHammer());
    const before = await stateOf(guest);
    const run = await attach(guest, '-o', 'x.mmiotrace');
    await guest.watcher.hmp('trace-event memory_region_ops_* off');
    await says(run, 'put back: accesses come again');
    await finish(run);
    expect(run.stderr).toMatch(
      /trace events were switched off \(memory_region_ops_.*, memory_region_ops_.*\), by somebody else: accesses of the last \d+\.\d s may be missing/,
    );
    // Nothing was logged before: where QEMU's log goes now is nobody's concern.
    expect(run.stderr).not.toContain('QEMU logs nowhere now');
    expect(run.stderr).toMatch(/^mmiobridge: the recording is INCOMPLETE: loss in 1 place$/m);
    expect(missingInLoss(run)).toBeGreaterThan(0);
    expect(await stateOf(guest)).toEqual(before);
  });

  test('a log that is sent elsewhere comes back, and what went elsewhere is a loss', async () => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    await guest.watcher.hmp(`logfile ${bench.path('elsewhere.log')}`);
    await says(run, 'put back: accesses come again');
    await finish(run);
    expect(run.stderr).toContain("QEMU's log was sent elsewhere, by somebody else");
    expect(wentElsewhere()).toBeGreaterThan(0);
    expect(missingInLoss(run)).toBe(wentElsewhere());
    expect(openFiles(guest.pid).filter((path) => path.startsWith(bench.path('run')))).toEqual([]);
  });

  test('also a log that QEMU has only just left, where segments fill in no time', async () => {
    const guest = await bench.guest(await hammerGuest({ iterations: 0 }));
    const run = await attach(guest, '-o', 'x.mmiotrace', '--spool-limit', '16M');
    const newest = () =>
      Math.max(...readdirSync(bench.path('run', bench.sessions()[0] ?? '', 'spool')).map(Number));
    const begun = newest();
    await until('segments fill', () => newest() > begun + 3);
    // The guest may be paused just then: nothing went elsewhere, and nothing is missing.
    await guest.watcher.hmp(`logfile ${bench.path('elsewhere.log')}`);
    await says(run, 'put back: accesses come again');
    await finish(run);
    expect(run.stderr).toContain("QEMU's log was sent elsewhere, by somebody else");
    expect(missingInLoss(run)).toBe(wentElsewhere());
  });

  test('what somebody does again is left as it is, and said', async () => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    await guest.watcher.hmp('trace-event memory_region_ops_write off');
    await says(run, 'put back: accesses come again');
    await guest.watcher.hmp('trace-event memory_region_ops_write off');
    await says(run, 'is left as it is now');
    await sleep(100);
    run.child.kill('SIGINT');
    expect(await run.code(), run.stderr).toBe(130);
    const text = bench.read('x.mmiotrace');
    expect(text.match(/^MARK .* Lost an unknown number/gm)).toHaveLength(3);
    expect(text).toMatch(/mmiobridge: end incomplete/);
  });

  test.each([
    ['trace events are switched off', 'trace-event memory_region_ops_write off'],
    // Its last segment is still open by then.
    ['the log is sent elsewhere', 'logfile elsewhere.log'],
    ['the log is sent nowhere', 'logfile /dev/null'],
  ])('%s shortly before its end', async (_what, line) => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    await guest.watcher.hmp(line);
    run.child.kill('SIGINT');
    expect(await run.code(), run.stderr).toBe(130);
    expect(bench.read('x.mmiotrace')).toMatch(/mmiobridge: end incomplete/);
  });

  test('while its recorder is dead', async () => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    await run.kill();
    await guest.watcher.hmp('trace-event memory_region_ops_* off');
    await guest.watcher.hmp(`logfile ${bench.path('elsewhere.log')}`);
    const [id = ''] = bench.sessions();
    const resumed = bench.cli('resume', id);
    await says(resumed, 'put back: accesses come again');
    await finish(resumed);
    expect(resumed.stderr).toContain("QEMU's log was sent elsewhere, and trace events were");
    expect(missingInLoss(resumed)).toBeGreaterThan(0);
  });
});

describe('a second recorder of the same QEMU', () => {
  /** Through the monitor that is free. */
  async function second(guest: Guest, env?: string): Promise<Run> {
    await guest.watcher.close();
    const watched = guest.socket.replace('qmp.sock', 'watch.sock');
    const args = ['record', '--qmp', watched, '--device', 'dut', '-o', 'y.mmiotrace'];
    const run =
      env === undefined
        ? bench.cli(...args)
        : bench.start(['env', `MMIOBRIDGE_RUN=${env}`, ...bench.argv(...args)]);
    expect(await run.code()).toBe(1);
    return run;
  }

  test('is refused, and the first loses nothing', async () => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    const { stderr } = await second(guest);
    expect(stderr).toContain('mmiobridge: this QEMU is being recorded already');
    expect(stderr).toContain(`by process ${run.pid}; QEMU is process ${guest.pid}`);
    await finish(run);
    const text = bench.read('x.mmiotrace');
    expect(faultsIn(countsIn(text))).toEqual([]);
    expect(text).toMatch(/mmiobridge: end complete/);
    expect(readdirSync(bench.dir)).not.toContain('y.mmiotrace');
  });

  test('also where it cannot see the recording of the first', async () => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    const { stderr } = await second(guest, bench.path('other-run'));
    expect(stderr).toContain('mmiobridge: this QEMU is recorded by another mmiobridge');
    expect(stderr).toMatch(/logs into .*\/spool\/00000\d/);
    await finish(run);
    expect(bench.read('x.mmiotrace')).toMatch(/mmiobridge: end complete/);
  });

  test('after the first was killed: it can be resumed', async () => {
    const guest = await bench.guest(await steadyHammer());
    const run = await attach(guest, '-o', 'x.mmiotrace');
    await run.kill();
    const [id = ''] = bench.sessions();
    const { stderr } = await second(guest);
    expect(stderr).toContain('a recording of this QEMU was interrupted, and waits');
    expect(stderr).toContain(`mmiobridge resume ${id}`);
    const resumed = bench.cli('resume', id);
    await says(resumed, 'resuming');
    await finish(resumed);
    const text = bench.read('x.mmiotrace');
    expect(faultsIn(countsIn(text))).toEqual([]);
    expect(text).toMatch(/mmiobridge: end complete/);
  });
});
