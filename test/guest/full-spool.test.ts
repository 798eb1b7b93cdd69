/**
 * The file system of the spool is filled by others. QEMU tells nobody that it could not write: what
 * may be missing is a loss, in its place, and there is never a gap without one.
 */
import { closeSync, openSync, readFileSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Bench, counted, toldAtEnd, until, type Running } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
});

const TEXT = ['-o', 'x.mmiotrace'];
const endless = () => hammerGuest({ iterations: 0 });

/** Writes a file of others until there is no room for a byte more. */
function fill(name = 'filler'): void {
  const file = openSync(join(bench.runDir, name), 'w');
  try {
    for (const chunk of [1 << 20, 4096, 1]) {
      const bytes = new Uint8Array(chunk);
      try {
        for (;;) writeSync(file, bytes);
      } catch {
        // Less fits now, or nothing.
      }
    }
  } finally {
    closeSync(file);
  }
}

function empty(name = 'filler'): void {
  rmSync(join(bench.runDir, name));
}

async function ended(recorder: Running): Promise<string> {
  recorder.kill('SIGINT');
  const { status } = await recorder.exited;
  expect(status, recorder.stderr).toBe(130);
  return readFileSync(bench.path('x.mmiotrace'), 'latin1');
}

/** Between any two accesses that are there and do not follow each other a loss is told. */
function expectNoSilentGap(text: string): void {
  const { gaps, lines } = counted(text);
  for (const { before, behind } of gaps) {
    const between = lines.slice(before + 1, behind).join('\n');
    expect(between).toMatch(/^MARK [\d.]+ (Lost an unknown number|mmiobridge: damage)/m);
  }
}

describe('a file system that is too small to begin with', () => {
  test('is refused, with what there is and what is needed; nothing is left', async () => {
    bench.mountRunDir('8m');
    const args = ['record', '--device', 'dut', ...TEXT, '--', ...(await endless())];
    const { status, stderr } = await bench.run(...args);
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /too little room for the spool\n.*spool has \d\.\d MiB left; the least for a recording is 16\.0 MiB\n.*--spool DIR/,
    );
    expect([bench.sessions(), bench.qemus()]).toEqual([[], []]);
  });

  test('also for what --spool-limit wants', async () => {
    bench.mountRunDir('64m');
    const args = ['record', '--device', 'dut', '--spool-limit', '1G', ...TEXT];
    const { status, stderr } = await bench.run(...args, '--', ...(await endless()));
    expect(status).toBe(1);
    expect(stderr).toMatch(/has 6\d\.\d MiB left; --spool-limit is 1\.0 GiB/);
  });
});

describe('a file system that others fill while QEMU logs into it', () => {
  test('has the guest paused until there is room, and what may be missing is told', async () => {
    bench.mountRunDir('64m');
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 2_000_000);
    fill();
    await recorder.says(/there is no room left in .*spool: what QEMU logs now may be missing/);
    await recorder.says(/the guest is paused until there is more room/);
    await sleep(300);
    empty();
    await recorder.says(/there is room again in .*spool/);
    await recorder.says(/there is more room: the guest goes on/);
    const { length } = readFileSync(bench.path('x.mmiotrace'));
    await bench.grown('x.mmiotrace', length + 1_000_000);
    const text = await ended(recorder);
    expectNoSilentGap(text);
    expect(text).toMatch(/Lost an unknown number .* the file system of the spool was full/);
    expect(toldAtEnd(text).how).toBe('incomplete');
  });

  test('also after the recorder was killed meanwhile', async () => {
    bench.mountRunDir('64m');
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 1_000_000);
    recorder.kill('SIGKILL');
    await recorder.exited;
    // QEMU goes on until nothing is left: it is a spool of 64 MiB, that nobody reads.
    await until('it is full', () => statfsSync(bench.runDir).bavail === 0);
    await sleep(300);
    const id = bench.session();
    const resumed = await bench.resume(id);
    await resumed.says(/there is room again in .*spool/);
    const text = await ended(resumed);
    expectNoSilentGap(text);
    expect(text).toMatch(/Lost an unknown number .* the file system of the spool was full/);
    expect(toldAtEnd(text).how).toBe('incomplete');
  });
});
