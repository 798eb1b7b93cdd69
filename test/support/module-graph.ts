import { posix } from 'node:path';

/** What a module imports, by the specifiers in its text. */
export interface Module {
  /** From src/ on, such as `base/errors.ts`. */
  readonly path: string;
  readonly specifiers: readonly string[];
}

/** Who may import what. */
export interface ImportRules {
  /**
   * The folders that each folder may import from, beside itself. A folder may have rooms
   * (`recording/source`), which have rules of their own. A module of no listed folder is a fault.
   */
  readonly folders: Readonly<Record<string, readonly string[]>>;
  /** The folders that may import a package; packages not listed may be imported anywhere. */
  readonly packages: Readonly<Record<string, readonly string[]>>;
}

/** A specifier for `import()` of what is not a literal: nobody can say what it imports. */
const UNKNOWN = '(computed)';

/** `import` and `export … from` statements (prettier has them begin their lines), and `import()`. */
export function specifiersOf(text: string): string[] {
  const statements = text.matchAll(
    /^(?:import\s+(?:[^;'"]*?\sfrom\s+)?|export\s+(?:type\s+)?(?:\*|\{)[^;'"]*?\sfrom\s+)(['"])(.+?)\1/gm,
  );
  const calls = withoutComments(text).matchAll(/\bimport\s*\(\s*(?:(['"])(.+?)\1\s*[,)])?/g);
  return [...statements, ...calls].map(([, , specifier]) => specifier ?? UNKNOWN);
}

/** Comments that have lines of their own, which is where a sentence can look like code. */
export function withoutComments(text: string): string {
  return text.replaceAll(/^\s*(?:\/\*[^]*?\*\/|\/\/.*$)/gm, '');
}

export function folderOf(path: string): string {
  return path.split('/')[0] ?? '';
}

/** The most specific folder with a rule that a module lies in. */
function roomOf(path: string, { folders }: ImportRules): string | undefined {
  return Object.keys(folders)
    .filter((folder) => isIn(path, folder))
    .toSorted((a, b) => b.length - a.length)[0];
}

function isIn(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

/** `protobufjs` of `protobufjs/minimal.js`; builtin modules with their `node:`. */
export function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

/** Every import that the rules do not allow, each with its file. */
export function importFaults(modules: readonly Module[], rules: ImportRules): string[] {
  const known = new Set(modules.map(({ path }) => path));
  return modules.flatMap((module) => {
    const folder = folderOf(module.path);
    const room = roomOf(module.path, rules);
    const allowed = room === undefined ? undefined : rules.folders[room];
    if (allowed === undefined) {
      return [`${module.path}: no rule for the folder ${posix.dirname(module.path)}`];
    }
    return module.specifiers.flatMap((specifier) => {
      const fault = (what: string) => [`${module.path}: imports ${specifier}, ${what}`];
      if (specifier === UNKNOWN) return fault('which only shows when it runs');
      const target = targetOf(module, specifier);
      if (target === undefined) {
        const importers = rules.packages[packageOf(specifier)];
        if (importers === undefined || importers.includes(folder)) return [];
        return fault(`which is for ${importers.join(', ')} alone`);
      }
      if (!known.has(target)) return fault('which is not a file of ours');
      const to = roomOf(target, rules) ?? '';
      if (to === room || allowed.some((one) => isIn(to, one))) return [];
      return fault(`but ${room} imports from ${allowed.join(', ') || 'nothing of ours'} alone`);
    });
  });
}

/** Files that import each other in a circle, each circle once: `a.ts → b.ts → a.ts`. */
export function importCycles(modules: readonly Module[]): string[] {
  const byPath = new Map(modules.map((module) => [module.path, module]));
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, above: readonly string[]): void => {
    const start = above.indexOf(path);
    if (start >= 0) cycles.push([...above.slice(start), path].join(' → '));
    const module = byPath.get(path);
    if (start >= 0 || done.has(path) || module === undefined) return;
    for (const specifier of module.specifiers) {
      const target = targetOf(module, specifier);
      if (target !== undefined) visit(target, [...above, path]);
    }
    done.add(path);
  };
  for (const { path } of modules) visit(path, []);
  return cycles;
}

/** The module that a relative specifier names; `undefined` for a package. */
function targetOf(module: Module, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined;
  return posix.join(posix.dirname(module.path), specifier);
}
