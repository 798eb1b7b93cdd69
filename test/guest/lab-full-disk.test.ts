/** A run without a person, on a disk that is full: it ends, and nothing of it is lost. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Manifest } from '../../src/lab/run/manifest.ts';
import { Bench, counted, toldAtEnd, type Running } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import { until } from '../support/soon.ts';

let bench: Bench;
let disk: string;
beforeEach(() => {
  bench = new Bench();
  disk = bench.mountDisk('disk', '300k');
});
afterEach(async () => {
  await bench.close();
});

/** Runs until there is no room for its output; a file `go` then ends its last step. */
async function runUntilFull(runs: string, output: string): Promise<{ run: Running; id: string }> {
  const guest = await hammerGuest({ iterations: 0, pauseTurns: 40_000 });
  writeFileSync(
    bench.path('long.yaml'),
    `lab: 1
steps:
  - start:
      qemu: ${JSON.stringify(guest)}
      record: { device: dut, output: ${output} }
  - name: long
    host-run: until [ -e '${bench.path('go')}' ]; do sleep 0.1; done
`,
  );
  const run = bench.start(['lab', 'run', 'long.yaml', '-o', runs, '--allow-host-commands']);
  await run.says(/long …/);
  const [id = ''] = bench.sessions().filter((name) => name !== 'lab');
  await until('there is no room', async () => {
    const [entry] = await bench.status();
    return typeof entry?.status?.stalled === 'string';
  });
  return { run, id };
}

interface Left {
  readonly folder: string;
  readonly manifest: Manifest;
}

function leftIn(runs: string): Left {
  const [name = ''] = readdirSync(runs);
  const folder = join(runs, name);
  // Nothing half written lies beside the rest.
  expect(readdirSync(folder).filter((file) => file.endsWith('.new'))).toEqual([]);
  const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as Manifest;
  return { folder, manifest };
}

/** There is room again: `lab clean` has the whole of it written. */
async function expectCleaned(id: string, output: () => string): Promise<void> {
  await until('the VM is ended', () => bench.qemus().length === 0);
  const before = counted(output().replace(/[^\n]*$/, '')).pairs;
  bench.enlargeDisk(disk, '1g');
  const clean = await bench.run('lab', 'clean');
  expect(clean.stdout).toContain(`recording ${id} is written to its end; its VM is ended`);
  expect(clean.status, clean.stderr).toBe(0);
  const text = output();
  const { pairs, gaps } = counted(text);
  expect(gaps).toEqual([]);
  expect(toldAtEnd(text)).toMatchObject({ how: 'complete', writes: pairs });
  expect(pairs).toBeGreaterThan(before);
  expect(bench.sessions()).toEqual([]);
}

test('a run whose output has no room ends when nobody makes some, and says so in its manifest', async () => {
  const runs = bench.path('runs');
  const { run, id } = await runUntilFull(runs, join(disk, 'x.mmiotrace'));
  writeFileSync(bench.path('go'), '');
  const { status } = await run.exited;
  const reason = /there is no room for the rest of the recording .*ENOSPC/;
  expect(run.stderr).toMatch(/^failed: there is no room for the rest of the recording/m);
  expect(run.stderr).toMatch(new RegExp(`^LEFT +the recording ${id}: ${reason.source}`, 'm'));
  expect(run.stderr).toContain('`mmiobridge lab clean` tries it again');
  expect(status, run.stderr).toBe(1);
  const ended = leftIn(runs).manifest;
  expect(ended).toMatchObject({
    result: 'failed',
    reason: expect.stringMatching(reason) as string,
  });
  expect(ended.left).toHaveLength(1);

  await expectCleaned(id, () => readFileSync(join(disk, 'x.mmiotrace'), 'latin1'));
  const { result, reason: why, left } = leftIn(runs).manifest;
  expect([result, why, left]).toEqual(['failed', ended.reason, []]);
});

test('a run whose folder has no room ends at once when it is interrupted', async () => {
  const { run, id } = await runUntilFull(disk, 'x.mmiotrace');
  run.kill('SIGINT');
  const { status } = await run.exited;
  expect(run.stderr).toMatch(/^interrupted: interrupted by SIGINT/m);
  expect(run.stderr).toContain('manifest.json could not be written: ENOSPC');
  expect(run.stderr).toMatch(new RegExp(`^LEFT +the recording ${id}: .*ENOSPC`, 'm'));
  expect(status, run.stderr).toBe(130);
  const { folder, manifest } = leftIn(disk);
  expect(manifest.result).toBe('running');

  await expectCleaned(id, () => readFileSync(join(folder, 'x.mmiotrace'), 'latin1'));
  expect(leftIn(disk).manifest).toMatchObject({
    result: 'interrupted',
    reason: expect.stringContaining('had no room to write how it ended') as string,
    left: [],
  });
});
