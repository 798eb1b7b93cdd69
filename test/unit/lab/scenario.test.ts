import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { MmioError } from '../../../src/base/errors.ts';
import { faultsError } from '../../../src/lab/language/fault.ts';
import { checkScenario } from '../../../src/lab/scenario/check.ts';
import { labJsonSchema } from '../../../src/lab/scenario/json-schema.ts';
import { readScenario } from '../../../src/lab/scenario/read.ts';
import { template } from '../../../src/lab/scenario/template.ts';
import { STEP_KINDS } from '../../../src/lab/steps/index.ts';
import type { Scenario } from '../../../src/lab/steps/kind.ts';
import { faultsOf } from '../../support/json-schema.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'scenario-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const path = join(dir, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

interface Options {
  readonly set?: readonly string[];
  readonly allowHostCommands?: boolean;
}

function read(text: string, options: Options = {}): Scenario {
  const path = write('run.yaml', text);
  const scenario = readScenario(path, options.set ?? [], { here: dir });
  const faults = checkScenario(scenario, { allowHostCommands: options.allowHostCommands === true });
  if (faults.length > 0) throw faultsError(faults);
  return scenario;
}

/** The error as a person sees it, without the folder. */
function errorOf(text: string, options: Options = {}): string {
  try {
    read(text, options);
  } catch (error) {
    if (!(error instanceof MmioError)) throw error;
    return [error.message, error.evidence, error.hint]
      .filter(Boolean)
      .join('\n')
      .replaceAll(`${dir}/`, '');
  }
  throw new Error('there is no fault');
}

const START = `  - start: { qemu: qemu-system-x86_64, agent: true, serial: [console] }`;
const steps = (...lines: readonly string[]) => ['lab: 1', 'steps:', START, ...lines].join('\n');

describe('a scenario', () => {
  test('is read with its steps, their names, limits and what becomes of a failure', () => {
    const scenario = read(
      [
        'lab: 1',
        'name: nic',
        'time-limit: 1m30s',
        "bind: ['01:00.0']",
        'steps:',
        START,
        '  - wait: 500ms',
        '  - wait: 2s',
        '  - name: load',
        '    guest-run: modprobe e1000e',
        '    time-limit: 5s',
        '    on-failure: continue',
        '  - mark: the cable is in',
      ].join('\n'),
    );
    expect(scenario).toMatchObject({ name: 'nic', limitMs: 90_000, bind: ['0000:01:00.0'] });
    const shown = scenario.steps.map(({ name, kind, limitMs, onFailure }) =>
      [name, kind.name, limitMs, onFailure].join(' | '),
    );
    expect(shown.slice(1)).toEqual([
      'wait | wait | 2073600000 | stop',
      'wait 2 | wait | 2073600000 | stop',
      'load | guest-run | 5000 | continue',
      'the cable is in | mark | 10000 | stop',
    ]);
  });

  test('has a command line as one text, split as a shell would, or as a list', () => {
    const argvOf = (qemu: string) => {
      const { options } = read(`lab: 1\nsteps:\n  - start:\n      qemu: ${qemu}`).steps[0] ?? {};
      return (options as { readonly qemu: readonly string[] }).qemu;
    };
    expect(
      argvOf(`>-\n        qemu-kvm -m 1G\n        -append "a b" -name 'c d' -x e\\ f`),
    ).toEqual(['qemu-kvm', '-m', '1G', '-append', 'a b', '-name', 'c d', '-x', 'e f']);
    expect(argvOf('[qemu-kvm, -smp, 2]')).toEqual(['qemu-kvm', '-smp', '2']);
  });

  test('has variables, which --set changes', () => {
    const text = steps(
      '  - wait: ${time}',
      '  - mark: "${who} $${who} in ${place}"',
      '  - click: { x: "${x}", y: 2 }',
    ).replace('lab: 1', 'lab: 1\nvariables: { time: 1s, who: x, place: "${who}y", x: 3 }');
    const options = (set: readonly string[]) =>
      read(text, { set })
        .steps.slice(1)
        .map((step) => step.options);
    expect(options([])).toEqual([1000, 'x ${who} in xy', { x: 3, y: 2 }]);
    expect(options(['who=z', 'time=3s', 'x=7'])).toEqual([3000, 'z ${who} in zy', { x: 7, y: 2 }]);
    expect(errorOf(text, { set: ['whom=z'] })).toContain('run.yaml has no variable whom');
    expect(errorOf(text, { set: ['who'] })).toContain('write --set NAME=VALUE');
  });

  test('includes the steps of other files, whose own variables give way', () => {
    write(
      'lib/boot.yaml',
      'variables: { t: 1s, u: 2s }\nsteps:\n  - wait: ${t}\n  - include: more.yaml',
    );
    write('lib/more.yaml', 'steps:\n  - name: last\n    wait: ${u}');
    const scenario = read(
      steps('  - include: lib/boot.yaml').replace('lab: 1', 'lab: 1\nvariables: { t: 5s }'),
    );
    expect(scenario.steps.slice(1).map(({ options }) => options)).toEqual([5000, 2000]);
    expect(scenario.files.map(({ path }) => path.replace(`${dir}/`, ''))).toEqual([
      'run.yaml',
      'lib/boot.yaml',
      'lib/more.yaml',
    ]);
  });

  test('tells a fault of an included file where it stands', () => {
    write('lib/boot.yaml', 'steps:\n  - wait: 1s\n  - wait: soon');
    expect(errorOf(steps('  - include: lib/boot.yaml'))).toContain(
      'lib/boot.yaml:3:11: wait is “soon”',
    );
    write('lib/boot.yaml', 'steps:\n  - include: ../run.yaml');
    expect(errorOf(steps('  - include: lib/boot.yaml'))).toContain('includes itself');
    expect(errorOf(steps('  - include: none.yaml'))).toContain('run.yaml:4:5: none.yaml cannot be');
  });
});

describe('a fault is told by file, line and column, with what was expected and an example:', () => {
  test.each<[string, string, string]>([
    ['no YAML', 'lab: 1\nsteps: [', 'run.yaml:2:9: no YAML: '],
    ['a tab', 'lab: 1\nsteps:\n\t- wait: 1s', 'run.yaml:3:1: no YAML: '],
    ['no map', '- a', 'run.yaml:1:1: this is no scenario'],
    ['empty', '', 'run.yaml:1:1: this is no scenario'],
    ['no version', 'steps:\n  - wait: 1s', 'lab is not there\nexpected 1'],
    ['another version', 'lab: 2\nsteps:\n  - wait: 1s', 'run.yaml:1:6: lab is 2\nexpected 1'],
    ['no steps', 'lab: 1\nsteps: []', 'run.yaml:2:8: steps is a list\nexpected at least 1 of them'],
    [
      'a strange name',
      'lab: 1\nstepz: 1\nsteps:\n  - wait: 1s',
      'run.yaml:2:1: the scenario has no stepz',
    ],
    ['a duplicate', 'lab: 1\nlab: 1\nsteps:\n  - wait: 1s', 'run.yaml:2:1: no YAML: Map keys'],
    [
      'bind',
      'lab: 1\nbind: [x]\nsteps:\n  - wait: 1s',
      'run.yaml:2:8: bind[0] is “x”\nexpected a PCI address',
    ],
    ['no step', 'lab: 1\nsteps:\n  - 5', 'run.yaml:3:5: a step has a kind'],
    [
      'unknown step',
      'lab: 1\nsteps:\n  - serial-wait: x',
      'there is no step “serial-wait”\nexpected one of start,',
    ],
    [
      'two kinds',
      'lab: 1\nsteps:\n  - wait: 1s\n    mark: x',
      'run.yaml:4:5: one step does one thing',
    ],
    ['nothing', 'lab: 1\nsteps:\n  - name: x', 'this step does nothing'],
    [
      'time',
      'lab: 1\nsteps:\n  - wait: 5',
      'run.yaml:3:11: wait is 5\nexpected a time with its unit: 500ms',
    ],
    [
      'limit',
      'lab: 1\nsteps:\n  - wait: 1s\n    time-limit: x',
      'run.yaml:4:17: step time-limit is “x”',
    ],
    ['too long', 'lab: 1\nsteps:\n  - wait: 1000h', 'expected a time of at most 24 days'],
    [
      'on-failure',
      'lab: 1\nsteps:\n  - wait: 1s\n    on-failure: go',
      'expected stop, or continue, or ignore',
    ],
    ['no VM', 'lab: 1\nsteps:\n  - reset: {}', 'run.yaml:3:5: step “reset”: there is no VM yet'],
    ['no variable', 'lab: 1\nsteps:\n  - mark: ${who}', 'run.yaml:3:11: there is no variable who'],
    [
      'no agent',
      'lab: 1\nsteps:\n  - start: { qemu: q }\n  - wait-agent: {}',
      'the VM has no port for the agent',
    ],
    [
      'no qemu',
      'lab: 1\nsteps:\n  - start: { agent: true }',
      'run.yaml:3:12: start qemu is not there\nexpected a command line',
    ],
    [
      'quotes',
      'lab: 1\nsteps:\n  - start: { qemu: "q \'a" }',
      "expected a command line with both halves of its '",
    ],
    ['argv', 'lab: 1\nsteps:\n  - start: { qemu: q -daemonize }', 'daemonize'],
    ['terminal', 'lab: 1\nsteps:\n  - start: { qemu: q -nographic }', 'takes the terminal'],
    [
      'output',
      'lab: 1\nsteps:\n  - start: { qemu: q, record: { output: a.pcap } }',
      'a file whose suffix names a format',
    ],
    [
      'stdout',
      "lab: 1\nsteps:\n  - start: { qemu: q, record: { output: '-' } }",
      'a run has no standard output',
    ],
    [
      'source',
      'lab: 1\nsteps:\n  - start: { qemu: q, record: { source: x } }',
      'expected log, or kvm, or plugin',
    ],
    ['spool', 'lab: 1\nsteps:\n  - start: { qemu: q, record: { spool-limit: 5K } }', 'at least 1M'],
    [
      'collector',
      'lab: 1\nsteps:\n  - start: { qemu: q, record: { tls-ca: x } }',
      'record tls-ca is for a collector',
    ],
    [
      'record',
      'lab: 1\nsteps:\n  - start: { qemu: q, record: { livee: 1 } }',
      'run.yaml:3:33: start record has no livee\nexpected output, device, source,',
    ],
  ])('%s', (_, text, message) => {
    expect(errorOf(text)).toContain(message);
  });

  test.each<[string, string, string]>([
    ['regex', "  - wait-serial: 'a('", 'expected a regular expression: '],
    [
      'port',
      '  - wait-serial: { text: a, port: com9 }',
      'there is no serial port com9: start has console',
    ],
    ['filter', '  - wait-access: { filter: "value &" }', 'expected a filter: '],
    [
      'since',
      '  - wait-access: { filter: write, since: later }',
      'since names no earlier step: later',
    ],
    ['event', '  - wait-event: reset', 'expected a QMP event, such as RESET'],
    [
      'keys',
      '  - keys: [ctrl-foo]',
      'run.yaml:4:12: keys[0] is “ctrl-foo”\nexpected keys that are held',
    ],
    ['text', '  - type: grün', 'expected text of characters that a US keyboard has'],
    ['picture', '  - wait-screen: { matches: none.png }', 'there is no picture none.png'],
    ['screen', '  - wait-screen: {}', 'expected'],
    ['copy', '  - copy-in: { from: none, to: /x }', 'there is no file none to copy'],
    ['outside', '  - copy-out: { from: /x, to: ../y }', 'it is outside it'.slice(3)],
    ['second VM', '  - attach: { qmp: x }', 'a run has one VM, and “start” has it already'],
    ['after the end', '  - stop-recording: {}\n  - mark: x', 'has ended in “stop-recording”'],
    ['host', '  - host-run: ls', 'commands on the host are off'],
    ['quit', '  - qmp: { execute: quit }', 'quit would end the recording'],
    [
      'name twice',
      '  - { name: a, wait: 1s }\n  - { name: a, wait: 1s }',
      'there is another step “a”',
    ],
    ['name', '  - { name: a/b, wait: 1s }', 'a name of 1 to 100 characters, without /'],
    ['snapshot', '  - save-snapshot: a b', 'a name of letters, digits'],
  ])('%s', (_, step, message) => {
    expect(errorOf(steps(step))).toContain(message);
  });

  test('snapshots of a VM with a passed-through device, before the run', () => {
    const text = steps('  - save-snapshot: s').replace(
      'qemu-system-x86_64',
      "'qemu-kvm -device vfio-pci,host=01:00.0'",
    );
    expect(errorOf(text)).toContain('a VM with vfio-pci can have no snapshot');
  });

  test('and all of them at once, in their order', () => {
    expect(errorOf('lab: 1\nsteps:\n  - wait: x\n  - mark: 5\n    time-limit: 3\n')).toBe(
      [
        'run.yaml has 3 faults',
        'run.yaml:3:11: wait is “x”',
        '  expected a time with its unit: 500ms, 30s, 5m, 1h',
        '    - wait: 5s',
        'run.yaml:4:11: mark is 5',
        '  expected text',
        '    - mark: the cable is plugged in',
        'run.yaml:5:17: step time-limit is 3',
        '  expected a time with its unit: 500ms, 30s, 5m, 1h',
        '    - mark: the cable is plugged in',
      ].join('\n'),
    );
  });
});

describe('a hostile file', () => {
  test.each([
    ['brackets', `lab: ${'['.repeat(100_000)}`],
    ['braces', `lab: ${'{a: '.repeat(50_000)}`],
    ['dashes', `lab:\n  ${'- '.repeat(100_000)}a`],
    ['question marks', `${'? '.repeat(100_000)}a`],
    ['indents', Array.from({ length: 900 }, (_, at) => `${' '.repeat(at)}a:`).join('\n')],
    [
      'aliases',
      `a: &a [x, x, x, x, x, x, x, x, x, x]\n${Array.from({ length: 20 }, (_, at) => `b${at}: &b${at} [${`*${at === 0 ? 'a' : `b${at - 1}`}, `.repeat(9)}]`).join('\n')}`,
    ],
    ['an alias in itself', 'a: &a [*a]'],
    ['zero bytes', 'lab: 1\0'],
    ['two MiB', `# ${'x'.repeat(2 ** 21)}`],
    ['a tag', 'lab: !!binary aGVsbG8='],
    ['a key that is a list', '[a, b]: 1'],
  ])('is refused: %s', (_, text) => {
    expect(errorOf(text)).toMatch(/run\.yaml/);
  });

  test('whatever it has in it, is refused with MmioError or read', () => {
    const words = fc.constantFrom(
      ...'lab: 1|steps:|  - |- |wait: 5s|start:|qemu: q|{|}|[|]|: |"|\'|&a |*a|!!x |${x}|$${|\n|\n  |\n    |#|,|\t|0x1|null|~|%|@|<<: |name: x'.split(
        '|',
      ),
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof(words, fc.string({ maxLength: 5 })), { maxLength: 60 }),
        (parts) => {
          const outcome = (() => {
            try {
              read(parts.join(''));
              return 'read';
            } catch (error) {
              return error instanceof MmioError ? error.code : error;
            }
          })();
          expect(['read', 'usage']).toContain(outcome);
        },
      ),
      { numRuns: 1500 },
    );
  });
});

describe('every kind of step', () => {
  test.each(STEP_KINDS.map((kind) => [kind.name, kind] as const))(
    '%s has an example that is right',
    (_, kind) => {
      const example = parse(kind.example) as Record<string, unknown>[];
      expect(Object.keys(example[0] ?? {})[0]).toBe(kind.name);
      expect(kind.schema.safeParse(example[0]?.[kind.name]).error).toBeUndefined();
      const file = { lab: 1, steps: example };
      expect(faultsOf(file, labJsonSchema(), labJsonSchema())).toEqual([]);
    },
  );

  test('stands in the JSON Schema, which docs/ has', async () => {
    const text = `${JSON.stringify(labJsonSchema(), null, 2)}\n`;
    await expect(text).toMatchFileSnapshot('../../../docs/lab.schema.json');
  });

  test.each([
    ['no version', { steps: [{ wait: '1s' }] }],
    ['an unknown step', { lab: 1, steps: [{ waits: '1s' }] }],
    ['two kinds', { lab: 1, steps: [{ wait: '1s', mark: 'x' }] }],
    ['a time without its unit', { lab: 1, steps: [{ wait: 5 }] }],
    ['an option that is not there', { lab: 1, steps: [{ start: { qemu: 'q', x: 1 } }] }],
  ])('the JSON Schema refuses %s', (_, file) => {
    const schema = labJsonSchema();
    expect(faultsOf(file, schema, schema)).not.toEqual([]);
  });

  test('the template is right', () => {
    const path = write('nic.yaml', template('nic'));
    const scenario = readScenario(path, [], { here: dir });
    expect(checkScenario(scenario, { allowHostCommands: false })).toEqual([]);
    const schema = labJsonSchema();
    expect(faultsOf(parse(readFileSync(path, 'utf8')), schema, schema)).toEqual([]);
  });
});

describe('the documentation', () => {
  const docs = readFileSync(new URL('../../../docs/lab.md', import.meta.url), 'utf8');

  test.each(STEP_KINDS.map((kind) => [kind.name, kind] as const))(
    'has %s, with its example',
    (name, kind) => {
      const section = docs.split(/^### /m).find((part) => part.startsWith(`\`${name}\`\n`)) ?? '';
      expect(section.replaceAll(/\s+/g, ' ')).toContain(kind.about);
      expect(section).toContain(`\`\`\`yaml\n${kind.example}\n\`\`\``);
    },
  );
});
