import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { VERSION } from '../src/base/version.ts';
import {
  cycles,
  folderOf,
  forbiddenImports,
  importersOutside,
  importsOf,
  readGraph,
} from './support/module-graph.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const graph = readGraph(join(ROOT, 'src'));

/** Which folder may import from which: the arrows of the design, one direction, no cycles. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  base: [],
  model: ['base'],
  wire: ['base', 'model'],
  qmp: ['base'],
  machine: ['qmp', 'model', 'base'],
  sources: ['base', 'model', 'wire'],
  sinks: ['base', 'model', 'wire'],
  recording: ['base', 'model', 'wire', 'qmp', 'machine', 'sources', 'sinks'],
  cli: ['base', 'model', 'wire', 'qmp', 'machine', 'sources', 'sinks', 'recording'],
};

/** Packages that only some folders may know. */
const PACKAGES: readonly (readonly [string, readonly string[]])[] = [
  ['node:child_process', ['machine']],
  ['protobufjs', ['wire']],
  ['commander', ['cli']],
  ['@commander-js/extra-typings', ['cli']],
];

describe('imports', () => {
  test('every folder is in the table', () => {
    expect(new Set([...graph.keys()].map(folderOf))).toEqual(new Set(Object.keys(ALLOWED)));
  });
  test('go only where the table allows', () => {
    expect(forbiddenImports(graph, ALLOWED)).toEqual([]);
  });
  test('never go in a circle', () => {
    expect(cycles(graph)).toEqual([]);
  });
  test.each(PACKAGES)('%s stays in %s', (name, folders) => {
    expect(importersOutside(graph, name, folders)).toEqual([]);
    expect([...graph.values()].flat().some((it) => it.startsWith(name))).toBe(true);
  });
  test('a graph that breaks the rules is found out', () => {
    const source =
      "import { a } from '../sinks/b.ts';\nexport type { C } from '../qmp/c.ts';\nimport 'ws';";
    const bad = new Map([
      ['base/a.ts', importsOf(source, 'base/a.ts')],
      ['sinks/b.ts', ['base/a.ts']],
      ['qmp/c.ts', []],
    ]);
    expect(forbiddenImports(bad, ALLOWED)).toEqual([
      'base/a.ts -> sinks/b.ts',
      'base/a.ts -> qmp/c.ts',
    ]);
    expect(cycles(bad)).toEqual(['base/a.ts -> sinks/b.ts -> base/a.ts']);
    expect(importersOutside(bad, 'ws', ['server'])).toEqual(['base/a.ts']);
  });
});

test('nobody prints but cli/', () => {
  // Standard output as an output of a recording is opened in one place.
  const opensStdout = 'recording/output-set.ts';
  const printing = [...graph.keys()].filter((file) => {
    const source = readFileSync(join(ROOT, 'src', file), 'utf8');
    return /\bconsole\.|process\.(stdout|stderr)\b/.test(source) && folderOf(file) !== 'cli';
  });
  expect(printing).toEqual([opensStdout]);
});

test('the version is the one of the package', () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    readonly version: string;
  };
  expect(VERSION).toBe(version);
});

test('no file names a package registry by its host', () => {
  const hostsOf = (program: string, args: readonly string[]) =>
    execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n')
      .map((line) => /^[a-z+]+:\/\/([^/:]+)/.exec(line)?.[1])
      .filter((host) => host !== undefined);
  const hosts = new Set([
    ...hostsOf('apt-get', ['indextargets', '--format', '$(SITE)']),
    ...hostsOf('npm', ['config', 'get', 'registry']),
  ]);
  expect(hosts.size).toBeGreaterThan(0);
  const files = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' })
    .split('\n')
    .filter((file) => file !== '');
  const naming = files.filter((file) => {
    const text = readFileSync(join(ROOT, file), 'latin1');
    return [...hosts].some((host) => text.includes(host));
  });
  expect(naming).toEqual([]);
});
