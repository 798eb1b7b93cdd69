/**
 * A YAML file as a tree whose every value knows where it stands, so that whatever is wrong with it
 * later is told by file, line and column.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, type Node } from 'yaml';
import type { Fault, Place } from './fault.ts';

export type Tree =
  | { readonly kind: 'scalar'; readonly place: Place; readonly value: Scalar }
  | { readonly kind: 'list'; readonly place: Place; readonly items: readonly Tree[] }
  | { readonly kind: 'map'; readonly place: Place; readonly entries: readonly Entry[] };

export type Scalar = string | number | boolean | null;

export interface Entry {
  readonly key: string;
  readonly keyPlace: Place;
  readonly value: Tree;
}

/** More than anybody writes by hand. */
const MAX_BYTES = 2 ** 20;
const MAX_NODES = 100_000;
const MAX_DEPTH = 40;

/** The text as a tree; the faults are those that keep it from being one. */
export function parseTree(
  text: string,
  file: string,
): { readonly tree: Tree | undefined; readonly faults: readonly Fault[] } {
  const start = { file, line: 1, column: 1 };
  const refuse = (message: string, place: Place = start) => ({
    tree: undefined,
    faults: [{ place, message }],
  });
  if (text.length > MAX_BYTES) return refuse(`over ${MAX_BYTES} bytes: this is no scenario`);
  if (text.includes('\0')) return refuse('has a zero byte: this is no text');
  // The parser runs out of stack, past all catching, where brackets or indents are thousands deep.
  const deep = tooDeep(text);
  if (deep !== undefined) {
    return refuse(`nested more than ${MAX_DEPTH} deep`, { file, line: deep, column: 1 });
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, merge: true });
  const placeOf = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(1, line), column: Math.max(1, col) };
  };
  if (document.errors.length > 0) {
    return {
      tree: undefined,
      faults: document.errors.map(({ message, pos }) => ({
        place: placeOf(pos[0]),
        message: `no YAML: ${message}`,
      })),
    };
  }
  const faults: Fault[] = [];
  let nodes = 0;
  const build = (node: Node | null, around: Place, depth: number): Tree => {
    const place = node?.range ? placeOf(node.range[0]) : around;
    if (++nodes > MAX_NODES || depth > MAX_DEPTH) {
      if (!faults.some(({ message }) => message.startsWith('too large'))) {
        faults.push({
          place,
          message: `too large: over ${MAX_NODES} values, or an alias in itself`,
        });
      }
      return { kind: 'scalar', place, value: null };
    }
    if (isAlias(node)) {
      const target = node.resolve(document);
      if (target === undefined)
        faults.push({ place, message: `there is no anchor ${node.source}` });
      return build(target ?? null, place, depth + 1);
    }
    if (isSeq<Node>(node)) {
      const items = node.items.map((item) => build(item, place, depth + 1));
      return { kind: 'list', place, items };
    }
    if (isMap<Node, Node>(node)) {
      const entries = node.items.map(({ key, value }): Entry => {
        const keyPlace = key.range ? placeOf(key.range[0]) : place;
        if (!isScalar(key)) faults.push({ place: keyPlace, message: 'a name must be plain text' });
        const name = isScalar(key) ? String(key.value) : '';
        return { key: name, keyPlace, value: build(value, keyPlace, depth + 1) };
      });
      return { kind: 'map', place, entries };
    }
    const value: unknown = isScalar(node) ? node.value : null;
    if (value === null || typeof value === 'boolean' || typeof value === 'string') {
      return { kind: 'scalar', place, value };
    }
    if (typeof value === 'number' || typeof value === 'bigint') {
      return { kind: 'scalar', place, value: Number(value) };
    }
    faults.push({ place, message: 'is neither text, a number, true, false nor a list or a map' });
    return { kind: 'scalar', place, value: null };
  };
  const tree = build(document.contents, start, 0);
  return faults.length > 0 ? { tree: undefined, faults } : { tree, faults: [] };
}

/** The line in which nesting goes too deep: by brackets, by indent, or by dashes in one line. */
function tooDeep(text: string): number | undefined {
  let brackets = 0;
  let lineNumber = 0;
  for (const line of text.split('\n')) {
    lineNumber++;
    for (const char of line) {
      if (char === '[' || char === '{') brackets++;
      else if (char === ']' || char === '}') brackets = Math.max(0, brackets - 1);
      if (brackets > MAX_DEPTH) return lineNumber;
    }
    const marks = /^(?:\s*(?:[-?:]\s+|&\S+\s+|!\S+\s+))*/.exec(line)?.[0] ?? '';
    if (marks.length > 40 * MAX_DEPTH) return lineNumber;
    if ((marks.match(/[-?:]/g)?.length ?? 0) > MAX_DEPTH) return lineNumber;
    const indent = /^ */.exec(line)?.[0].length ?? 0;
    if (indent > 20 * MAX_DEPTH) return lineNumber;
  }
  return undefined;
}

/** Plain data, as zod takes it. */
export function plainOf(tree: Tree): unknown {
  switch (tree.kind) {
    case 'scalar':
      return tree.value;
    case 'list':
      return tree.items.map(plainOf);
    case 'map':
      return Object.fromEntries(tree.entries.map(({ key, value }) => [key, plainOf(value)]));
  }
}

/** Where the value at a path stands; as near as there is one. */
export function placeAt(tree: Tree, path: readonly PropertyKey[]): Place {
  let at = tree;
  for (const step of path) {
    const next =
      at.kind === 'list'
        ? at.items[Number(step)]
        : at.kind === 'map'
          ? at.entries.findLast(({ key }) => key === step)?.value
          : undefined;
    if (next === undefined) return at.place;
    at = next;
  }
  return at.place;
}

export function entryOf(tree: Tree, name: string): Entry | undefined {
  return tree.kind === 'map' ? tree.entries.findLast(({ key }) => key === name) : undefined;
}
