/** QEMU 10.0 may hang for good at its end, if a QMP command is on its way just then. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { QmpClient } from '../../src/qmp/client.ts';
import { Bench, counted } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import { qemuVersions } from '../support/qemu.ts';
import { until } from '../support/soon.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
});

const ITERATIONS = 30_000;

/** Asks one thing after the other, until there is nobody who answers. */
async function pester(monitor: string): Promise<void> {
  const qmp = await QmpClient.connect(monitor);
  try {
    for (;;) await qmp.execute('query-status', undefined, { timeoutMs: 1000 });
  } catch {
    await qmp.close();
  }
}

// It hangs more often than not: of five it is hardly ever none.
test('a recording ends with its guest all the same, and has everything', async () => {
  const path = qemuVersions().find(({ version }) => version === '10.0')?.path ?? '';
  let hung = 0;
  for (let round = 0; round < 5; round++) {
    const monitor = bench.path(`monitor-${round}`);
    const guest = [
      ...(await hammerGuest({ iterations: ITERATIONS, pauseTurns: 5000, qemu: path })),
      '-qmp',
      `unix:${monitor},server=on,wait=off`,
    ];
    const recorder = await bench.record(['-o', `x${round}.mmiotrace`], guest);
    await pester(monitor);
    await until(`it ends: ${recorder.stderr}`, () => recorder.child.exitCode !== null);
    if (recorder.stderr.includes('hangs at its end: it is sent SIGTERM, which frees it')) hung++;
    expect(recorder.child.exitCode, recorder.stderr).toBe(0);
    expect(counted(bench.read(`x${round}.mmiotrace`))).toMatchObject({
      pairs: ITERATIONS,
      gaps: [],
    });
  }
  expect(bench.qemus()).toEqual([]);
  process.stdout.write(`QEMU 10.0 hung at its end in ${hung} of 5 rounds\n`);
});
