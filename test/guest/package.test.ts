import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { VERSION } from '../../src/base/version.ts';
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
  const listing = execFileSync('tar', ['-tzf', place.path(tarball)], { encoding: 'utf8' });
  const files = listing.trimEnd().split('\n');
  for (const file of [
    'dist/cli/main.js',
    'dist/web/index.html',
    'LICENSE',
    'README.md',
    'docs/formats.md',
    'proto/mmiobridge.proto',
    'qemu-scripts/setup.sh',
  ]) {
    expect(files).toContain(`package/${file}`);
  }
  // No tests, recordings, sources, or packages of others.
  const foreign =
    /^package\/(?!(dist|proto|qemu-scripts|docs)\/|(package\.json|README\.md|LICENSE)$)/;
  expect(files.filter((file) => foreign.test(file) || file.includes('/node_modules/'))).toEqual([]);

  const prefix = place.path('prefix');
  const installed = await run('npm', ['install', '-g', '--prefix', prefix, place.path(tarball)], {
    timeoutMs: 180_000,
  });
  expect(installed.status, installed.stderr).toBe(0);
  const program = `${prefix}/bin/mmiobridge`;
  expect(existsSync(program)).toBe(true);
  const elsewhere = { cwd: '/' };
  expect((await run(program, ['--version'], elsewhere)).stdout).toBe(`${VERSION}\n`);
  const help = await run(program, ['--help'], elsewhere);
  expect(help.status, help.stderr).toBe(0);
  for (const command of ['record', 'resume', 'convert', 'view', 'mark', 'status']) {
    expect(help.stdout).toMatch(new RegExp(`^ +${command}\\b`, 'm'));
  }
  const converted = await run(program, ['convert', '-', '-o', '-'], {
    ...elsewhere,
    input:
      'VERSION 20070824\nMAP 1.000000 1 0xfe000000 0x0 0x1000 0x0 0\nR 4 1.000001 1 0xfe000004 0x2a 0x0 0\n',
  });
  expect(converted.status, converted.stderr).toBe(0);
  expect(converted.stdout).toContain('R 4 1.000001 1 0xfe000004 0x2a 0x0 0\n');
});
