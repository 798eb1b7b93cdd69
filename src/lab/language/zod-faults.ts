/** What zod found, in our words and with its place in the file. */
import { z } from 'zod';
import type { Fault } from './fault.ts';
import { entryOf, placeAt, plainOf, type Tree } from './tree.ts';

type Issue = z.core.$ZodIssue;

/** @param what how the value is called: `step wait-serial` */
export function zodFaults(
  error: z.ZodError,
  schema: z.ZodType,
  tree: Tree,
  what: string,
  example: string | undefined,
): Fault[] {
  return error.issues.map((issue) => {
    const fault = faultOf(issue, tree, what, example);
    if (fault.expected !== undefined) return fault;
    const known = namesAt(schema, issue.path);
    return known.length === 0 ? fault : { ...fault, expected: known.join(', ') };
  });
}

/** The names that a map at a path may have. */
function namesAt(schema: z.core.$ZodType, path: readonly PropertyKey[]): string[] {
  const [step, ...rest] = path;
  if (schema instanceof z.ZodOptional) return namesAt(schema.unwrap(), path);
  if (schema instanceof z.ZodPipe) return namesAt(schema.in, path);
  if (schema instanceof z.ZodUnion) {
    return [...new Set(schema.options.flatMap((option) => namesAt(option, path)))];
  }
  if (!(schema instanceof z.ZodObject)) return [];
  if (step === undefined) return Object.keys(schema.shape);
  const inner = (schema.shape as Readonly<Record<string, z.core.$ZodType>>)[String(step)];
  return inner === undefined ? [] : namesAt(inner, rest);
}

function faultOf(issue: Issue, tree: Tree, what: string, example: string | undefined): Fault {
  const { path } = issue;
  const name =
    [what, ...path.map((part) => (typeof part === 'number' ? `[${part}]` : String(part)))]
      .filter((part) => part !== '')
      .join(' ')
      .replaceAll(' [', '[') || 'the scenario';
  const place = placeAt(tree, path);
  const found = foundAt(tree, path);
  switch (issue.code) {
    case 'unrecognized_keys': {
      const [key = ''] = issue.keys;
      const parent = treeAt(tree, path);
      const entry = parent === undefined ? undefined : entryOf(parent, key);
      return {
        place: entry?.keyPlace ?? place,
        message: `${name} has no ${issue.keys.join(', ')}`,
        example,
      };
    }
    case 'invalid_union': {
      // The branch that came furthest knows best what is wrong.
      const branches = issue.errors
        .map((issues) => issues.toSorted((a, b) => b.path.length - a.path.length)[0])
        .filter((first) => first !== undefined)
        .toSorted((a, b) => b.path.length - a.path.length);
      const [best] = branches;
      if (best !== undefined && (best.path.length > 0 || best.code === 'unrecognized_keys')) {
        return faultOf({ ...best, path: [...path, ...best.path] }, tree, what, example);
      }
      // Where the kind of value is right, what is wrong with it is better to know than other kinds.
      const near = branches.filter(
        ({ code }) => code !== 'invalid_type' && code !== 'invalid_value',
      );
      const all = [...new Set((near.length > 0 ? near : branches).map(expectedOf))].join(', or ');
      const expected = near.length === 0 && isOwn(issue) ? issue.message : all;
      return { place, message: `${name} is ${found}`, expected, example };
    }
    default: {
      return {
        place,
        message: `${name} is ${found}`,
        expected: expectedOf(issue),
        example,
      };
    }
  }
}

function expectedOf(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return isOwn(issue) ? issue.message : wordOf(issue.expected);
    case 'invalid_value':
      return issue.values.map(String).join(', or ');
    case 'too_small':
      return isOwn(issue) ? issue.message : `at least ${issue.minimum}${unitOf(issue.origin)}`;
    case 'too_big':
      return isOwn(issue) ? issue.message : `at most ${issue.maximum}${unitOf(issue.origin)}`;
    default:
      return issue.message;
  }
}

/** Whether the schema has words of its own for it; zod's begin with a capital. */
function isOwn({ message }: Issue): boolean {
  return !/^(?:Invalid|Too)/.test(message);
}

function unitOf(origin: string): string {
  if (origin === 'string') return ' characters';
  return origin === 'array' ? ' of them' : '';
}

const WORDS: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'options, by name',
  record: 'values, by name',
};

function wordOf(type: string): string {
  return WORDS[type] ?? type;
}

function treeAt(tree: Tree, path: readonly PropertyKey[]): Tree | undefined {
  let at: Tree | undefined = tree;
  for (const step of path) {
    if (at === undefined) return undefined;
    at = at.kind === 'list' ? at.items[Number(step)] : entryOf(at, String(step))?.value;
  }
  return at;
}

function foundAt(tree: Tree, path: readonly PropertyKey[]): string {
  const at = treeAt(tree, path);
  if (at === undefined) return 'not there';
  if (at.kind === 'list') return 'a list';
  if (at.kind === 'map') return 'a map';
  const value = plainOf(at);
  if (value === null) return 'empty';
  return typeof value === 'string' ? `“${value.slice(0, 60)}”` : JSON.stringify(value);
}
