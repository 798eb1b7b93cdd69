/** From a file to a scenario: YAML, variables, included files, the steps' own schemas. */
import { readFileSync } from 'node:fs';
import { basename, dirname, resolve as resolvePath } from 'node:path';
import { z } from 'zod';
import { MmioError, messageOf } from '../../base/errors.ts';
import { fullPciAddress } from '../../host/pci.ts';
import { STEP_KINDS } from '../steps/index.ts';
import { durationSchema } from '../language/duration.ts';
import { faultsError, type Fault } from '../language/fault.ts';
import type { OnFailure } from '../language/scenario.ts';
import type { AnyStepKind, Scenario, ScenarioStep } from '../steps/kind.ts';
import {
  entryOf,
  parseTree,
  plainOf,
  type Entry,
  type Scalar,
  type Tree,
} from '../language/tree.ts';
import { setValue, substitute, VARIABLE_NAME } from '../language/variables.ts';
import { zodFaults } from '../language/zod-faults.ts';

/** The version of the language that this reads. */
export const LAB_VERSION = 1;

const MAX_INCLUDES = 16;
const MAX_STEPS = 1000;

const nameSchema = z
  .string()
  .regex(/^[^\s/\0-\x1f][^/\0-\x1f]{0,99}$/, { error: 'a name of 1 to 100 characters, without /' });

const scalar = z.union([z.string(), z.number(), z.boolean()], {
  error: 'text, a number, true or false',
});

const pciAddress = z.string().transform((text, context) => {
  const address = fullPciAddress(text);
  if (address !== undefined) return address;
  context.addIssue({ code: 'custom', message: 'a PCI address, such as 0000:01:00.0' });
  return z.NEVER;
});

/** What a scenario has beside its steps. */
export const headSchema = z.strictObject({
  lab: z.literal(LAB_VERSION),
  name: nameSchema.optional(),
  about: z.string().optional(),
  variables: z.record(z.string(), scalar).optional(),
  'time-limit': durationSchema.optional(),
  bind: z.array(pciAddress).optional(),
  steps: z.array(z.unknown()).min(1).max(MAX_STEPS),
});

/** What every step may have beside its kind. */
export const stepSchema = z.strictObject({
  name: nameSchema.optional(),
  'time-limit': durationSchema.optional(),
  'on-failure': z.enum(['stop', 'continue', 'ignore']).optional(),
});

/** What a file that is included may have. */
const includedSchema = headSchema.pick({ about: true, variables: true, steps: true });

const HEAD_EXAMPLE = `lab: ${LAB_VERSION}\nsteps:\n  - start: { qemu: qemu-system-x86_64 … }`;

/**
 * Reads a scenario and checks all that can be told without running it.
 *
 * @param set `NAME=VALUE` of the command line
 * @param more variables that are there without being declared
 * @throws MmioError `usage` with every fault by file, line and column; `not-found`, `io`
 */
export function readScenario(
  path: string,
  set: readonly string[],
  more: Readonly<Record<string, string>>,
): Scenario {
  const reader = new Reader(set, more);
  const scenario = reader.read(resolvePath(path), path);
  if (reader.faults.length > 0 || scenario === undefined) throw faultsError(reader.faults);
  return scenario;
}

class Reader {
  readonly faults: Fault[] = [];
  readonly #set: ReadonlyMap<string, string>;
  readonly #variables = new Map<string, Scalar>();
  readonly #files: { readonly path: string; readonly text: string }[] = [];
  readonly #steps: ScenarioStep[] = [];

  constructor(set: readonly string[], more: Readonly<Record<string, string>>) {
    this.#set = new Map(set.map(parseSet));
    for (const [key, value] of Object.entries(more)) this.#variables.set(key, value);
  }

  read(path: string, shown: string): Scenario | undefined {
    const tree = this.#parse(path, shown);
    if (tree === undefined) return undefined;
    this.#declare(tree);
    const head = substitute(withoutSteps(tree), this.#variables, this.faults);
    const parsed = this.#check(headSchema, head, '', HEAD_EXAMPLE);
    this.#readSteps(tree, [path], shown);
    for (const key of this.#set.keys()) {
      if (this.#variables.has(key)) continue;
      throw new MmioError('usage', `${shown} has no variable ${key}`, {
        evidence: `--set ${key}=…; it has ${[...this.#variables.keys()].join(', ')}`,
        hint: `declare it there: variables: { ${key}: … }`,
      });
    }
    if (parsed === undefined) return undefined;
    return {
      path,
      name: parsed.name ?? basename(path).replace(/\.ya?ml$/, ''),
      about: parsed.about ?? '',
      limitMs: parsed['time-limit'],
      bind: parsed.bind ?? [],
      steps: this.#steps,
      variables: Object.fromEntries(this.#variables),
      files: this.#files,
    };
  }

  #parse(path: string, shown: string): Tree | undefined {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      throw new MmioError('not-found', `cannot read the scenario ${shown}`, {
        evidence: messageOf(error),
        hint: '`mmiobridge lab new FILE` writes one to begin with',
        cause: error,
      });
    }
    this.#files.push({ path, text });
    const { tree, faults } = parseTree(text, shown);
    this.faults.push(...faults);
    if (tree === undefined) return undefined;
    if (tree.kind === 'map') return tree;
    this.faults.push({
      place: tree.place,
      message: 'this is no scenario',
      expected: 'names with values',
      example: HEAD_EXAMPLE,
    });
    return undefined;
  }

  /** Takes over what `variables:` declares, unless a file that includes it, or `--set`, knows better. */
  #declare(tree: Tree): void {
    const declared = entryOf(tree, 'variables')?.value;
    if (declared?.kind !== 'map') return;
    for (const { key, keyPlace, value } of declared.entries) {
      if (!VARIABLE_NAME.test(key)) {
        this.faults.push({
          place: keyPlace,
          message: `a variable cannot be called “${key}”`,
          expected: 'letters, digits, _ and -, a letter first',
        });
      }
      if (value.kind !== 'scalar') continue;
      const given = this.#set.get(key);
      const own = substitute(value, this.#variables, this.faults);
      const of = own.kind === 'scalar' ? own.value : null;
      if (given !== undefined) this.#variables.set(key, setValue(given, of));
      else if (!this.#variables.has(key)) this.#variables.set(key, of);
    }
  }

  #readSteps(tree: Tree, including: readonly string[], shown: string): void {
    const steps = entryOf(tree, 'steps')?.value;
    if (steps?.kind !== 'list') return;
    for (const item of steps.items) {
      if (entryOf(item, 'include') !== undefined) this.#include(item, including, shown);
      else this.#readStep(substitute(item, this.#variables, this.faults));
    }
  }

  #include(item: Tree, including: readonly string[], shown: string): void {
    const step = substitute(item, this.#variables, this.faults);
    const schema = z.strictObject({ include: z.string().min(1) });
    const parsed = this.#check(schema, step, 'step', '- include: boot.yaml');
    if (parsed === undefined) return;
    const path = resolvePath(dirname(including.at(-1) ?? ''), parsed.include);
    const refuse = (message: string) => void this.faults.push({ place: item.place, message });
    if (including.includes(path)) return refuse(`${parsed.include} includes itself`);
    if (including.length > MAX_INCLUDES) return refuse(`over ${MAX_INCLUDES} files in one another`);
    if (this.#steps.length > MAX_STEPS) return refuse(`over ${MAX_STEPS} steps`);
    const name = shown.startsWith('/') ? path : shownAs(shown, parsed.include);
    let tree: Tree | undefined;
    try {
      tree = this.#parse(path, name);
    } catch (error) {
      if (!(error instanceof MmioError)) throw error;
      return refuse(`${parsed.include} cannot be included: ${error.evidence ?? error.message}`);
    }
    if (tree === undefined) return;
    this.#declare(tree);
    const head = substitute(withoutSteps(tree), this.#variables, this.faults);
    this.#check(includedSchema, head, '', 'steps:\n  - wait: 1s');
    this.#readSteps(tree, [...including, path], name);
  }

  #readStep(tree: Tree): void {
    const kinds = new Map(STEP_KINDS.map((kind) => [kind.name, kind]));
    if (tree.kind !== 'map') {
      this.faults.push({
        place: tree.place,
        message: 'a step has a kind and its options',
        example: '- wait: 5s',
      });
      return;
    }
    const found = tree.entries.filter(({ key }) => kinds.has(key));
    const [only, second] = found;
    const kind = kinds.get(only?.key ?? '');
    if (only === undefined || kind === undefined) {
      this.faults.push(unknownStep(tree));
      return;
    }
    if (second !== undefined) {
      this.faults.push(twoKinds(only, second));
      return;
    }
    const rest = { ...tree, entries: tree.entries.filter((entry) => entry !== only) };
    const common = this.#check(stepSchema, rest, 'step', kind.example);
    const options = this.#check(kind.schema, only.value, kind.name, kind.example);
    if (common === undefined || options === undefined) return;
    const stepName = common.name ?? kind.nameOf?.(options) ?? this.#freeName(kind.name);
    if (this.#steps.some(({ name: other }) => other === stepName)) {
      this.faults.push({
        place: tree.place,
        message: `there is another step “${stepName}”`,
        expected: 'each name once: it becomes a mark',
        example: `- name: ${stepName} again\n  ${kind.name}: …`,
      });
    }
    this.#steps.push({
      kind,
      name: stepName,
      options,
      limitMs: common['time-limit'] ?? kind.limitMs,
      onFailure: (common['on-failure'] ?? 'stop') satisfies OnFailure,
      place: only.keyPlace,
    });
  }

  /** `wait`, `wait 2`, … */
  #freeName(kind: string): string {
    const taken = new Set(this.#steps.map(({ name }) => name));
    for (let number = 2, free = kind; ; free = `${kind} ${number++}`) {
      if (!taken.has(free)) return free;
    }
  }

  #check<T>(schema: z.ZodType<T>, tree: Tree, what: string, example: string): T | undefined {
    const parsed = schema.safeParse(plainOf(tree));
    if (parsed.success) return parsed.data;
    this.faults.push(...zodFaults(parsed.error, schema, tree, what, example));
    return undefined;
  }
}

/** Its head alone: what stands in the steps is looked at step by step. */
function withoutSteps(tree: Tree): Tree {
  if (tree.kind !== 'map') return tree;
  const entries = tree.entries.map((entry): Entry => {
    if (entry.key !== 'steps' || entry.value.kind !== 'list') return entry;
    const items = entry.value.items.map(({ place }): Tree => ({
      kind: 'scalar',
      place,
      value: '',
    }));
    return { ...entry, value: { ...entry.value, items } };
  });
  return { ...tree, entries };
}

function unknownStep(tree: Tree): Fault {
  const common = Object.keys(stepSchema.shape);
  const keys = tree.kind === 'map' ? tree.entries.map(({ key }) => key) : [];
  const [strange] = keys.filter((key) => !common.includes(key));
  const known = STEP_KINDS.map((kind) => kind.name);
  const near = strange === undefined ? undefined : nearest(strange, STEP_KINDS);
  return {
    place: tree.place,
    message: strange === undefined ? 'this step does nothing' : `there is no step “${strange}”`,
    expected: `one of ${known.join(', ')}`,
    example: near?.example,
  };
}

function twoKinds(first: Entry, second: Entry): Fault {
  return {
    place: second.keyPlace,
    message: `one step does one thing: this has ${first.key} and ${second.key}`,
    example: `- ${first.key}: …\n- ${second.key}: …`,
  };
}

/** The kind whose name shares most with what was written. */
function nearest(written: string, kinds: readonly AnyStepKind[]): AnyStepKind | undefined {
  const parts = new Set(written.toLowerCase().split(/[-_ ]/));
  const scored = kinds.map((kind) => ({
    kind,
    score: kind.name.split('-').filter((part) => parts.has(part)).length,
  }));
  return scored.filter(({ score }) => score > 0).toSorted((a, b) => b.score - a.score)[0]?.kind;
}

function parseSet(text: string): readonly [string, string] {
  const equals = text.indexOf('=');
  const key = text.slice(0, equals);
  if (equals > 0 && VARIABLE_NAME.test(key)) return [key, text.slice(equals + 1)];
  throw new MmioError('usage', 'not a variable with its value', {
    evidence: `--set ${text}`,
    hint: 'write --set NAME=VALUE',
  });
}

/** A file beside another, as the user would name it. */
function shownAs(beside: string, name: string): string {
  const dir = dirname(beside);
  return dir === '.' ? name : `${dir}/${name}`;
}
