/**
 * The file system of the spool is filled by others. QEMU tells nobody that it could not write: what
 * may be missing is a loss, in its place, and there is never a gap without one.
 */
import { closeSync, openSync, readFileSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Bench, counted, toldAtEnd, type Running } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import { until } from '../support/soon.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
});

const TEXT = ['-o', 'x.mmiotrace'];
const endless = () => hammerGuest({ iterations: 0 });

/** Writes a file of others until there is no room for a byte more, or so much is left. */
function fill(leave = 0): void {
  const file = openSync(join(bench.runDir, 'filler'), 'a');
  const free = () => {
    const { bavail, bsize } = statfsSync(bench.runDir);
    return bavail * bsize;
  };
  try {
    for (; leave > 0 && free() > leave + 2 ** 20;) writeSync(file, new Uint8Array(2 ** 20));
    if (leave > 0) return;
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

function empty(): void {
  rmSync(join(bench.runDir, 'filler'));
}

async function ended(recorder: Running): Promise<string> {
  recorder.kill('SIGINT');
  const { status } = await recorder.exited;
  expect(status, recorder.stderr).toBe(130);
  return readFileSync(bench.path('x.mmiotrace'), 'latin1');
}

/** Whatever is missing between two accesses is within the time of a loss, or damage in its place. */
function expectNoSilentGap(text: string): void {
  const { gaps, lines } = counted(text);
  const losses = [
    ...text.matchAll(/^MARK (\S+) Lost an unknown number of events within (\S+) s/gm),
  ];
  const isLost = (sec: number) =>
    losses.some(([, from, seconds]) => {
      const since = sec - Number(from);
      return since > -0.001 && since < Number(seconds) + 0.001;
    });
  for (const { before, behind } of gaps) {
    const between = lines.slice(before + 1, behind).join('\n');
    const sec = Number(lines[before]?.split(' ')[2]);
    expect(/mmiobridge: damage|Lost an unknown/.test(between) || isLost(sec), lines[before]).toBe(
      true,
    );
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
    // What the recorder gives back meanwhile is taken, too.
    await until('it is full, and says so', () => {
      fill();
      return /no room left in .*spool: what QEMU logs now may be missing/.test(recorder.stderr);
    });
    // On a busy machine it was paused before, because the outputs were behind.
    await recorder.says(/: the guest is paused until /);
    await sleep(300);
    empty();
    await recorder.says(/there is room again in .*spool/);
    await recorder.says(/: the guest goes on$/m);
    const { length } = readFileSync(bench.path('x.mmiotrace'));
    await bench.grown('x.mmiotrace', length + 1_000_000);
    const text = await ended(recorder);
    expectNoSilentGap(text);
    expect(text).toMatch(/Lost an unknown number .* the file system of the spool was full/);
    expect(toldAtEnd(text).how).toBe('incomplete');
  });

  test('also after the recorder was killed meanwhile', async () => {
    bench.mountRunDir('64m');
    // Slow enough for the recorder to keep up: the guest is not paused when that is killed.
    const recorder = await bench.record(
      TEXT,
      await hammerGuest({ iterations: 0, pauseTurns: 40_000 }),
    );
    await bench.grown('x.mmiotrace', 1_000_000);
    recorder.kill('SIGKILL');
    await recorder.exited;
    const id = bench.session();
    // QEMU takes what the others leave.
    fill(4 * 2 ** 20);
    await until('it is full', () => statfsSync(bench.runDir).bavail === 0);
    await sleep(300);
    const resumed = await bench.resume(id);
    await resumed.says(/there is room again in .*spool/);
    const text = await ended(resumed);
    expectNoSilentGap(text);
    expect(text).toMatch(/Lost an unknown number .* the file system of the spool was full/);
    expect(toldAtEnd(text).how).toBe('incomplete');
  });
});
