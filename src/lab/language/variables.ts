/** `${NAME}` in a scenario's text. */
import type { Fault } from './fault.ts';
import type { Scalar, Tree } from './tree.ts';

export type Variables = ReadonlyMap<string, Scalar>;

// Other braces behind a dollar are a shell's own: ${file##*/}.
const USE = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_-]*)\}/g;
const WHOLE = /^\$\{([A-Za-z_][A-Za-z0-9_-]*)\}$/;

/** A name, as `--set` and `variables:` have it. */
export const VARIABLE_NAME = /^[A-Za-z_][A-Za-z0-9_-]*$/;

/**
 * The tree with each `${NAME}` replaced; `$${` stands for a `${` of its own. Text that is one `${NAME}`
 * and nothing else takes the value's kind, so that a number stays one. Names that are not there are
 * told by `faults`.
 */
export function substitute(tree: Tree, variables: Variables, faults: Fault[]): Tree {
  switch (tree.kind) {
    case 'list':
      return { ...tree, items: tree.items.map((item) => substitute(item, variables, faults)) };
    case 'map':
      return {
        ...tree,
        entries: tree.entries.map((entry) => ({
          ...entry,
          value: substitute(entry.value, variables, faults),
        })),
      };
    case 'scalar': {
      const { value, place } = tree;
      if (typeof value !== 'string' || !value.includes('$')) return tree;
      const look = (name: string): Scalar => {
        const found = variables.get(name);
        if (found !== undefined) return found;
        const known = [...variables.keys()].join(', ') || 'none';
        faults.push({
          place,
          message: `there is no variable ${name}`,
          expected: `one of those that there are: ${known}`,
          example: `variables:\n  ${name}: …\n# or, where it is not ours but a shell's:\n$\${${name}}`,
        });
        return '';
      };
      const whole = WHOLE.exec(value);
      if (whole !== null) return { ...tree, value: look(whole[1] ?? '') };
      const text = value.replaceAll(USE, (_, name: string | undefined) =>
        name === undefined ? '${' : String(look(name)),
      );
      return { ...tree, value: text };
    }
  }
}

/** The value that `--set` gives a variable: of the kind that the file's own value has. */
export function setValue(text: string, before: Scalar | undefined): Scalar {
  if (typeof before === 'number' && text.trim() !== '' && Number.isFinite(Number(text))) {
    return Number(text);
  }
  if (typeof before === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}
