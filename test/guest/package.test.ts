import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { Workplace, run } from '../support/cli.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

test('npm pack makes a package that installs globally and runs from any folder', async () => {
  await using place = new Workplace();
  const packed = await run(
    'npm',
    ['pack', '--ignore-scripts', '--json', '--pack-destination', place.dir],
    {
      cwd: ROOT,
      timeoutMs: 120_000,
    },
  );
  expect(packed.status, packed.stderr).toBe(0);
  const tarball = /"filename": "([^"]+)"/.exec(packed.stdout)?.[1] ?? '';
  const files = execFileSync('tar', ['-tzf', place.path(tarball)], { encoding: 'utf8' }).split(
    '\n',
  );
  for (const file of [
    'dist/cli/main.js',
    'LICENSE',
    'README.md',
    'docs/formats.md',
    'proto/mmiobridge.proto',
  ]) {
    expect(files).toContain(`package/${file}`);
  }
  expect(
    files.filter((file) => /^package\/(test|src|recordings|node_modules)\//.test(file)),
  ).toEqual([]);

  const prefix = place.path('prefix');
  const installed = await run('npm', ['install', '-g', '--prefix', prefix, place.path(tarball)], {
    timeoutMs: 180_000,
  });
  expect(installed.status, installed.stderr).toBe(0);
  const program = `${prefix}/bin/mmiobridge`;
  expect(existsSync(program)).toBe(true);
  const elsewhere = { cwd: '/' };
  expect((await run(program, ['--version'], elsewhere)).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  const converted = await run(program, ['convert', '-', '-o', '-'], {
    ...elsewhere,
    input:
      'VERSION 20070824\nMAP 1.000000 1 0xfe000000 0x0 0x1000 0x0 0\nR 4 1.000001 1 0xfe000004 0x2a 0x0 0\n',
  });
  expect(converted.status, converted.stderr).toBe(0);
  expect(converted.stdout).toContain('R 4 1.000001 1 0xfe000004 0x2a 0x0 0\n');
});
