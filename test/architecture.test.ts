import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { VERSION } from '../src/base/version.ts';
import {
  folderOf,
  importCycles,
  importFaults,
  packageOf,
  specifiersOf,
  withoutComments,
  type ImportRules,
  type Module,
} from './support/module-graph.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const BASE = ['base', 'model'];
/** What a recording is made of. */
const MACHINE = [...BASE, 'qmp', 'host', 'machine'];
const RECORDED = ['sources', 'attribution', 'analysis', 'sinks'];

/** The way of the data: a step knows those before it, and nothing of those after it. */
const RULES: ImportRules = {
  folders: {
    base: [],
    model: ['base'],
    wire: ['base', 'model'],
    qmp: ['base'],
    host: ['base'],
    machine: ['base', 'model', 'qmp', 'host'],
    sources: ['base', 'model', 'wire'],
    sinks: ['base', 'model', 'wire'],
    attribution: [...BASE, 'machine', 'sources'],
    analysis: BASE,
    reading: [...BASE, ...RECORDED],
    'recording/session': [...BASE, 'machine', 'attribution', 'analysis', 'sinks'],
    'recording/spool': BASE,
    'recording/source': [
      ...MACHINE,
      'sources',
      'attribution',
      'recording/spool',
      'recording/session',
    ],
    'recording/run': [
      ...MACHINE,
      ...RECORDED,
      'recording/source',
      'recording/spool',
      'recording/session',
    ],
    'recording/begin': [...MACHINE, ...RECORDED, 'recording'],
    doctor: MACHINE,
    bridge: [...BASE, 'wire', 'machine', 'analysis', 'sinks', 'recording/session'],
    server: [...BASE, 'wire', 'sources', 'analysis', 'sinks'],
    web: [...BASE, 'wire', 'analysis'],
    lab: [...MACHINE, 'analysis', 'sinks', 'recording', 'bridge'],
    cli: [
      ...MACHINE,
      ...RECORDED,
      'wire',
      'reading',
      'recording',
      'doctor',
      'bridge',
      'server',
      'lab',
    ],
    'vfio-user': ['base'],
  },
  packages: {
    'node:child_process': ['host', 'machine'],
    ws: ['bridge', 'server'],
    protobufjs: ['wire'],
    yaml: ['lab'],
    pngjs: ['lab'],
    commander: ['cli'],
    '@commander-js/extra-typings': ['cli'],
  },
};

/** What may print elsewhere than in cli/: a log can go to standard output. */
const PRINTS = { 'sinks/output-set.ts': "new StreamOutput(process.stdout, 'standard output')" };

interface Manifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
}

interface Lock {
  readonly packages: Readonly<Record<string, { readonly resolved?: string }>>;
}

const sources = new Map(
  readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.[cm]?[jt]sx?$/.test(path))
    .map((path) => [path, readFileSync(join(ROOT, 'src', path), 'utf8')]),
);
const modules: readonly Module[] = [...sources].map(([path, text]) => ({
  path,
  specifiers: specifiersOf(text),
}));
const manifest = JSON.parse(read('package.json')) as Manifest;

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

function run(program: string, args: readonly string[]): string {
  return execFileSync(program, args, { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' });
}

describe('the modules of src/', () => {
  it('are all looked at', () => {
    expect(modules.length).toBeGreaterThan(80);
    for (const { path, specifiers } of modules) {
      // Whatever form of import the parser does not know shows as a difference here.
      const seen = withoutComments(sources.get(path) ?? '').match(
        /^(?:import|export (?:type )?[*{])|^\} from |\bimport\s*\(|\brequire\s*\(/gm,
      );
      const statements = seen?.filter((start) => !start.startsWith('}')) ?? [];
      const locals = (sources.get(path) ?? '').match(/^export (?:type )?\{[^}]*\};/gm) ?? [];
      expect(specifiers, path).toHaveLength(statements.length - locals.length);
    }
  });

  it('import along the way of the data', () => {
    expect(importFaults(modules, RULES)).toEqual([]);
  });

  it('do not import each other in a circle', () => {
    expect(importCycles(modules)).toEqual([]);
  });

  it('import no package that package.json does not bring', () => {
    const brought = new Set([
      ...Object.keys(manifest.dependencies),
      ...builtinModules.map((name) => `node:${name}`),
    ]);
    const missing = modules
      .filter(({ path }) => folderOf(path) !== 'web')
      .flatMap(({ path, specifiers }) =>
        specifiers
          .filter((specifier) => !specifier.startsWith('.'))
          .filter((name) => !brought.has(name) && !brought.has(packageOf(name)))
          .map((name) => `${path}: ${name}`),
      );
    expect(missing).toEqual([]);
  });

  it('leave printing to cli/', () => {
    expect(printFaults(sources)).toEqual([]);
  });
});

describe('these tests', () => {
  const text = (...lines: readonly string[]): string => lines.join('\n');
  const graph = (files: Readonly<Record<string, string>>): Module[] =>
    Object.entries(files).map(([path, of]) => ({ path, specifiers: specifiersOf(of) }));

  it('see every form of import', () => {
    const code = text(
      "import 'a';",
      "import b from 'b';",
      'import type { C } from "c";',
      'import {',
      '  d,',
      "} from 'd';",
      "import * as e from 'e';",
      "export * from 'f';",
      "export * as g from 'g';",
      "export { h } from 'h';",
      'export type {',
      '  I,',
      "} from 'i';",
      "const j = await import('j');",
      'const k = await import(name);',
      "export const other = 'from', more = 'l';",
      '// import("m")',
      '/* about import() */',
    );
    expect(specifiersOf(code)).toEqual([...'abcdefghij'.split(''), '(computed)']);
  });

  it('name the folder, the package and the file that break a rule', () => {
    const faults = importFaults(
      graph({
        'base/a.ts': "import type { B } from '../model/b.ts';",
        'model/b.ts': "export { spawn } from 'node:child_process';",
        'sinks/c.ts': "import '../sources/d.ts';\nimport './nowhere.ts';",
        'sources/d.ts': "const wire = await import('protobufjs/minimal.js');",
        'server/e.ts': "import ws from 'ws';\nimport '../model/b.ts';\nawait import(name);",
        'recording/run/f.ts': "import { Command } from '@commander-js/extra-typings';",
        'attic/g.ts': '',
      }),
      RULES,
    );
    expect(faults).toEqual([
      'base/a.ts: imports ../model/b.ts, but base imports from nothing of ours alone',
      'model/b.ts: imports node:child_process, which is for host, machine alone',
      'sinks/c.ts: imports ../sources/d.ts, but sinks imports from base, model, wire alone',
      'sinks/c.ts: imports ./nowhere.ts, which is not a file of ours',
      'sources/d.ts: imports protobufjs/minimal.js, which is for wire alone',
      'server/e.ts: imports (computed), which only shows when it runs',
      'recording/run/f.ts: imports @commander-js/extra-typings, which is for cli alone',
      'attic/g.ts: no rule for the folder attic',
    ]);
  });

  it('find circles in one folder and across folders', () => {
    const cycles = importCycles(
      graph({
        'base/a.ts': "import './b.ts';",
        'base/b.ts': "import type { C } from './deep/c.ts';",
        'base/deep/c.ts': "import '../a.ts';\nimport '../../model/d.ts';",
        'model/d.ts': "import '../base/e.ts';",
        'base/e.ts': "import '../model/d.ts';",
        'cli/f.ts': "import '../base/a.ts';",
      }),
    );
    expect(cycles).toEqual([
      'base/a.ts → base/b.ts → base/deep/c.ts → base/a.ts',
      'model/d.ts → base/e.ts → model/d.ts',
    ]);
  });

  it('find who prints', () => {
    const faults = printFaults(
      new Map([
        ['cli/print.ts', "console.log('fine')"],
        ['model/a.ts', "// never console.log\nconsole.error('no')"],
        ['sinks/b.ts', 'const { stderr } = process;\nprocess.stdout.write(line);'],
        [
          'sinks/output-set.ts',
          "new StreamOutput(process.stdout, 'standard output')\nprocess.stderr.write(x)",
        ],
      ]),
    );
    expect(faults).toEqual([
      'model/a.ts: console.error',
      'sinks/b.ts: { stderr } = process',
      'sinks/b.ts: process.stdout',
      'sinks/output-set.ts: process.stderr',
    ]);
  });
});

describe('the package', () => {
  it('has one version', () => {
    expect(VERSION).toBe(manifest.version);
    expect(JSON.parse(read('package-lock.json'))).toMatchObject({ version: VERSION });
  });

  it('can be installed from any registry: the lock file names none', () => {
    const { packages } = JSON.parse(read('package-lock.json')) as Lock;
    expect(Object.keys(packages).length).toBeGreaterThan(10);
    const hosts = Object.entries(packages).filter(([, { resolved }]) =>
      /:\/\//.test(resolved ?? ''),
    );
    expect(hosts).toEqual([]);
  });

  it('names nowhere the hosts that this machine gets its packages from', () => {
    const sites = run('apt-get', ['indextargets', '--format', '$(SITE)']).split('\n');
    const urls = [...sites, run('npm', ['config', 'get', 'registry'])].map((url) => url.trim());
    const remote = urls.filter((url) => /^https?:/.test(url)).map(hostOf);
    expect(remote.length).toBeGreaterThan(0);
    // A mirror on the machine itself has no name of its own.
    const hosts = [...new Set(remote)].filter((host) => !/^(localhost|127\.|\[::1)/.test(host));
    const listed = run('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard']);
    // One that is deleted and not yet committed is still listed.
    const files = listed.split('\0').filter((path) => existsSync(join(ROOT, path)));
    const texts = files.filter((path) => statSync(join(ROOT, path)).isFile());
    expect(texts).toContain('package.json');
    expect(naming(hosts, texts)).toEqual([]);
    // It would be found.
    expect(naming(['mmiobridge'], ['package.json'])).toEqual(['package.json: mmiobridge']);
  });
});

function hostOf(url: string): string {
  return new URL(url).hostname;
}

function naming(words: readonly string[], paths: readonly string[]): string[] {
  return paths.flatMap((path) => {
    const bytes = readFileSync(join(ROOT, path));
    return words.filter((word) => bytes.includes(word)).map((word) => `${path}: ${word}`);
  });
}

/** What prints outside cli/. */
function printFaults(texts: ReadonlyMap<string, string>): string[] {
  return [...texts]
    .filter(([path]) => folderOf(path) !== 'cli' && folderOf(path) !== 'web')
    .flatMap(([path, text]) => {
      const exception = new Map(Object.entries(PRINTS)).get(path);
      const code = withoutComments(text);
      const rest = exception === undefined ? code : code.replace(exception, '');
      const found = rest.match(
        /\bconsole\.\w+|\bprocess\.(?:stdout|stderr)\b|\{[^}]*\bstd(?:out|err)\b[^}]*\} = process\b/g,
      );
      return (found ?? []).map((what) => `${path}: ${what}`);
    });
}
