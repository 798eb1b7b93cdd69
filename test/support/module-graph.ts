import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

/** What each file imports: files of the graph by their path, packages and `node:` by their name. */
export type ModuleGraph = ReadonlyMap<string, readonly string[]>;

const IMPORT = /^\s*(?:import|export)\s(?:[^'";]*?\sfrom\s*)?['"]([^'"]+)['"]/gm;
const DYNAMIC_IMPORT = /\bimport\(\s*['"]([^'"]+)['"]/g;

/** Every .ts file below a folder, paths relative to it. */
export function readGraph(root: string): ModuleGraph {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
  return new Map(
    files
      .filter((file) => file.endsWith('.ts'))
      .map((file) => [file, importsOf(readFileSync(join(root, file), 'utf8'), file)]),
  );
}

export function importsOf(source: string, file: string): string[] {
  const names = [IMPORT, DYNAMIC_IMPORT].flatMap((pattern) =>
    [...source.matchAll(pattern)].map((match) => match[1] ?? ''),
  );
  return names.map((name) => (name.startsWith('.') ? normalize(join(dirname(file), name)) : name));
}

/** `src/wire/frame.ts` below `src` is of folder `wire`. */
export function folderOf(file: string): string {
  return file.split('/')[0] ?? '';
}

/** Imports from folder to folder that the table does not allow, each as `a/x.ts -> b/y.ts`. */
export function forbiddenImports(
  graph: ModuleGraph,
  allowed: Readonly<Record<string, readonly string[]>>,
): string[] {
  const found: string[] = [];
  for (const [file, imports] of graph) {
    const from = folderOf(file);
    for (const target of imports) {
      if (!graph.has(target)) continue;
      const to = folderOf(target);
      if (to !== from && allowed[from]?.includes(to) !== true) found.push(`${file} -> ${target}`);
    }
  }
  return found;
}

/** Files that import each other in a circle, as `a.ts -> b.ts -> a.ts`; one for each circle met. */
export function cycles(graph: ModuleGraph): string[] {
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) found.push([...path.slice(at), file].join(' -> '));
    if (at >= 0 || done.has(file)) return;
    for (const target of graph.get(file) ?? []) {
      if (graph.has(target)) visit(target, [...path, file]);
    }
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}

/** Files outside `folders` that import a package. */
export function importersOutside(
  graph: ModuleGraph,
  name: string,
  folders: readonly string[],
): string[] {
  return [...graph]
    .filter(
      ([file, imports]) =>
        imports.some((it) => it === name || it.startsWith(`${name}/`)) &&
        !folders.includes(folderOf(file)),
    )
    .map(([file]) => file);
}
