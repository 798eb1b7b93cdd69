/** Outputs that are somebody else's. */
import { symlinkSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Bench, counted, toldAtEnd } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
});

const endless = () => hammerGuest({ iterations: 0, pauseTurns: 40_000 });

test('the file that another recording writes is not written, by whatever name', async () => {
  const first = await bench.record(['-o', 'x.mmiotrace'], await endless());
  await bench.grown('x.mmiotrace', 50_000);
  symlinkSync('x.mmiotrace', bench.path('link.mmiotrace'));
  for (const name of ['x.mmiotrace', bench.path('x.mmiotrace'), 'link.mmiotrace']) {
    const args = ['record', '--device', 'dut', '-o', name, '--', ...(await endless())];
    const { status, stderr } = await bench.run(...args);
    expect(status, stderr).toBe(1);
    expect(stderr).toMatch(/^mmiobridge: .*x\.mmiotrace belongs to another recording$/m);
    expect(stderr).toContain(`${bench.session()}, which is being made`);
  }
  first.kill('SIGKILL');
  await first.exited;
  const id = bench.session();
  // It waits to be gone on with: it is written by nobody just now.
  const args = ['record', '--device', 'dut', '-o', 'x.mmiotrace', '--', ...(await endless())];
  const { status, stderr } = await bench.run(...args);
  expect(status).toBe(1);
  expect(stderr).toContain(`mmiobridge resume ${id} goes on with it`);
  const resumed = await bench.resume(id);
  resumed.kill('SIGINT');
  expect(await resumed.exited).toMatchObject({ status: 130 });
  const text = bench.read('x.mmiotrace');
  expect(counted(text).gaps).toEqual([]);
  expect(toldAtEnd(text).how).toBe('complete');
});

test('what others are called does not command the terminal', async () => {
  const recorder = await bench.record(['-o', 'x.mmiotrace'], await endless());
  await bench.run('mark', 'red \u001b[31m\u0007 and \u009b2J');
  recorder.kill('SIGINT');
  await recorder.exited;
  const { stdout, stderr } = await bench.run('convert', 'x.mmiotrace\u001b[2J', '-o', 'y.ndjson');
  expect(stdout).toBe('');
  expect(stderr).toContain('x.mmiotrace\\x1b[2J');
  expect(`${stderr}${recorder.stderr}`).not.toMatch(/[\u001b\u0007\u009b]/);
});
