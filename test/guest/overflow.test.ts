/**
 * What happens when the outputs do not keep up: the guest waits, or the loss is where it happened.
 * The disk is a tmpfs of a few MiB.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Bench, counted, toldAtEnd } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import { until } from '../support/soon.ts';

const MIB = 2 ** 20;

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
});

/** A disk of 6 MiB, 2 of them taken by a file `ballast`. */
function smallDisk(): string {
  const disk = bench.mountDisk('disk', '6m');
  writeFileSync(join(disk, 'ballast'), new Uint8Array(2 * MIB));
  return disk;
}

async function stateIs(state: string): Promise<void> {
  await until(`the state is ${state}`, async () => (await bench.status())[0]?.state === state);
}

/** The disk is full and the guest paused, and so it stays: what was on its way has arrived. */
async function stuck(): Promise<void> {
  let before = -1;
  await until('the guest is stuck', async () => {
    const [entry] = await bench.status();
    const same = entry?.status?.spoolBytes === before;
    before = entry?.status?.spoolBytes ?? -1;
    const paused = entry?.state === 'guest paused' && entry.status?.stalled !== null;
    await sleep(100);
    return same && paused;
  });
}

/** There is a loss, and accesses behind it. */
async function recordedBehindLoss(): Promise<void> {
  let readsAtLoss = Infinity;
  await until('accesses come behind a loss', async () => {
    const { lossEvents = 0, reads = 0 } = (await bench.status())[0]?.status?.counters ?? {};
    if (lossEvents > 0) readsAtLoss = Math.min(readsAtLoss, reads);
    return reads > readsAtLoss + 1000;
  });
}

describe('an output that is full from its first byte', () => {
  const args = ['record', '--device', 'dut', '--format', 'mmiotrace', '-o', '/dev/full'];
  const endless = async () => ['--', ...(await hammerGuest({ iterations: 0 }))];
  const said = /waiting for room: \/dev\/full: ENOSPC/;

  test('is waited for until Ctrl-C, which leaves nothing behind', async () => {
    const recorder = bench.start([...args, ...(await endless())]);
    await recorder.says(said);
    recorder.kill('SIGINT');
    expect(await recorder.exited).toMatchObject({ status: 130 });
    expect(recorder.stderr).toContain('cannot write /dev/full');
    await until('QEMU is gone', () => bench.qemus().length === 0);
    expect(bench.sessions()).toEqual([]);
  });

  test('or until the time is over that the recording was to take', async () => {
    const recorder = bench.start([...args, '--duration', '1', ...(await endless())]);
    await recorder.says(said);
    expect(await recorder.exited).toMatchObject({ status: 1 });
    await until('QEMU is gone', () => bench.qemus().length === 0);
    expect(bench.sessions()).toEqual([]);
  });
});

describe('a full disk', () => {
  const PAIRS = 200_000;
  const args = (disk: string) => ['--spool-limit', '8M', '-o', join(disk, 'x.mmiotrace')];

  test('pauses the guest; with room made it goes on, and nothing is lost', async () => {
    const disk = smallDisk();
    const recorder = await bench.record(args(disk), await hammerGuest({ iterations: PAIRS }));
    await recorder.says(/the guest is paused until the outputs have caught up/);
    await recorder.says(
      /waiting for room: .*\/disk\/x\.mmiotrace: ENOSPC: no space left on device/,
    );
    await stuck();
    const [entry] = await bench.status();
    expect(entry?.status?.stalled).toContain('disk/x.mmiotrace: ENOSPC: no space left on device');
    expect((await bench.run('status')).stdout).toMatch(/^ {2}stalled {3}.*x\.mmiotrace: ENOSPC/m);
    // It stands still: not a byte more comes.
    const bytes = bench.spoolBytes();
    expect(bytes).toBeGreaterThan(0);
    await sleep(300);
    expect(bench.spoolBytes()).toBe(bytes);

    // A little room is soon used up again; the guest has to wait once more.
    rmSync(join(disk, 'ballast'));
    await recorder.says(/the output has room again/);
    bench.enlargeDisk(disk, '64m');
    expect(await recorder.exited).toMatchObject({ status: 0 });
    expect(recorder.stderr).toContain('the outputs have caught up: the guest goes on');
    const text = readFileSync(join(disk, 'x.mmiotrace'), 'latin1');
    expect(counted(text)).toMatchObject({ pairs: PAIRS, gaps: [] });
    expect(toldAtEnd(text)).toEqual({ how: 'complete', reads: PAIRS, writes: PAIRS });
    expect(text).not.toMatch(/lost/i);
  });

  test('and a recorder that is killed meanwhile: resume lets the guest go on', async () => {
    const disk = smallDisk();
    const recorder = await bench.record(args(disk), await hammerGuest({ iterations: PAIRS }));
    await stuck();
    recorder.kill('SIGKILL');
    await recorder.exited;
    expect(bench.qemus()).toHaveLength(1);

    const resumed = bench.start(['resume', bench.session()]);
    await resumed.says(/ENOSPC/);
    await stateIs('guest paused');
    bench.enlargeDisk(disk, '64m');
    expect(await resumed.exited).toMatchObject({ status: 0 });
    expect(resumed.stderr).toContain('the outputs have caught up: the guest goes on');
    const text = readFileSync(join(disk, 'x.mmiotrace'), 'latin1');
    expect(counted(text)).toMatchObject({ pairs: PAIRS, gaps: [] });
    expect(toldAtEnd(text)).toEqual({ how: 'complete', reads: PAIRS, writes: PAIRS });
  });
});

describe('--overflow=drop', () => {
  const DROP = ['--overflow', 'drop', '--spool-limit', '8M'];
  const args = (disk: string) => [...DROP, '-o', join(disk, 'x.mmiotrace')];

  const isLoss = (line: string) => /^MARK [\d.]+ Lost .* the spool was full/.test(line);
  const isOver = (line: string) => /^MARK [\d.]+ mmiobridge: trace events on again/.test(line);

  /** Each gap of the counter lies between a mark of loss and one that says it is over. */
  function expectGapsMarked(text: string): void {
    const { gaps, lines } = counted(text);
    const marks = [...lines.entries()].filter(([, line]) => isLoss(line) || isOver(line));
    // They come in turns.
    expect(marks.map(([, line]) => isLoss(line))).toEqual(marks.map((_, n) => n % 2 === 0));
    const places = marks.map(([index]) => index);
    const marked = places.flatMap((from, n) =>
      n % 2 === 0 ? [{ from, to: places[n + 1] ?? Infinity }] : [],
    );
    expect(gaps.length).toBeGreaterThan(0);
    for (const { before, behind } of gaps) {
      expect(marked.some(({ from, to }) => from < behind && to > before)).toBe(true);
    }
  }

  test('never stops the guest; the loss is where it happened, and everywhere told', async () => {
    const disk = smallDisk();
    const recorder = await bench.record(args(disk), await hammerGuest({ iterations: 0 }));
    await recorder.says(/accesses are dropped until the outputs have caught up/);
    await recorder.says(/waiting for room/);
    await stateIs('dropping');
    await sleep(300);
    bench.enlargeDisk(disk, '256m');
    await recorder.says(/accesses are recorded again/);
    await recordedBehindLoss();
    expect((await bench.run('status')).stdout).toMatch(
      /^ {2}lost {6}an unknown number, in (?:1 place|(?:[2-9]|\d{2,}) places)$/m,
    );
    process.kill(bench.qemu(), 'SIGTERM');
    expect(await recorder.exited).toMatchObject({ status: 3 });
    expect(recorder.stderr).toMatch(
      /^loss {6}an unknown number, in (?:1 place|(?:[2-9]|\d{2,}) places) \(MARKs/m,
    );
    expect(recorder.stderr).toContain('the recording is INCOMPLETE');
    expect(recorder.stderr).not.toContain('paused');
    const text = readFileSync(join(disk, 'x.mmiotrace'), 'latin1');
    expectGapsMarked(text);
    expect(toldAtEnd(text).how).toBe('incomplete');
    expect(text).not.toContain('vm-state paused');
  });

  test('and a recorder that is killed while it drops: resume records again, and says so', async () => {
    const disk = smallDisk();
    const recorder = await bench.record(args(disk), await hammerGuest({ iterations: 0 }));
    await recorder.says(/accesses are dropped/);
    recorder.kill('SIGKILL');
    await recorder.exited;
    bench.enlargeDisk(disk, '256m');
    const resumed = await bench.resume(bench.session());
    await recordedBehindLoss();
    process.kill(bench.qemu(), 'SIGTERM');
    expect(await resumed.exited).toMatchObject({ status: 3 });
    expectGapsMarked(readFileSync(join(disk, 'x.mmiotrace'), 'latin1'));
  });
});

test('many small segments under full fire: nothing is lost, and the spool is kept small', async () => {
  const pairs = 900_000;
  const limit = 32 * MIB;
  const guest = await hammerGuest({ iterations: pairs });
  const recorder = await bench.record(['--spool-limit', '32M', '-o', 'x.mmiotrace'], guest);
  let ended = false;
  let most = 0;
  void recorder.exited.then(() => (ended = true));
  await until('it has ended', () => {
    if (bench.sessions().length > 0) most = Math.max(most, bench.spoolBytes());
    return ended;
  });
  expect(await recorder.exited).toMatchObject({ status: 0 });
  const text = bench.read('x.mmiotrace');
  expect(counted(text)).toMatchObject({ pairs, gaps: [] });
  expect(toldAtEnd(text)).toEqual({ how: 'complete', reads: pairs, writes: pairs });
  // QEMU's lines are twice as long as ours: without deleting segments it would hold several limits.
  expect(text.length).toBeGreaterThan(2 * limit);
  expect(most).toBeGreaterThan(limit / 4);
  // A busy machine gives the recorder no turn for a while, and QEMU writes on.
  expect(most).toBeLessThan(2 * limit);
});
