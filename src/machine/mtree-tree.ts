/** A memory region, or an alias to a part of one, as `info mtree` prints it in one place. */
export interface TreeNode {
  /** First and last address; exact below 2^53. */
  readonly start: number;
  readonly end: number;
  /** Of those in one container the higher is on top. */
  readonly priority: number;
  readonly kind: string;
  readonly name: string;
  /** As it is printed, without its indent. */
  readonly line: string;
  /** The region that this is an alias of, and which byte of it is at `start`. */
  readonly alias: { readonly target: string; readonly offset: number } | undefined;
  readonly children: readonly TreeNode[];
}

/** An address space, or a region that some alias points to. */
export interface TreeSection {
  /** `address-space: memory` → `memory`; several where they share a root. */
  readonly addressSpaces: readonly string[];
  readonly root: TreeNode;
}

const NODE = /^( +)([0-9a-f]{8,16})-([0-9a-f]{8,16}) \(prio (-?\d+), ([^)]+)\): (.+)$/;
const ALIAS = /^alias .* @(.+) ([0-9a-f]{8,16})-[0-9a-f]{8,16}/;

type Growing = TreeNode & { readonly children: Growing[] };

/**
 * Reads the text of HMP `info mtree` (QEMU's `system/memory.c`, `mtree_print_mr`). Disabled regions
 * and what is in them are left out; lines of any other shape are passed over.
 */
export function parseTree(text: string): readonly TreeSection[] {
  const sections: TreeSection[] = [];
  let names: string[] = [];
  let open: { readonly indent: number; readonly node: Growing | undefined }[] = [];
  for (const line of text.split(/\r?\n/)) {
    const header = /^(address-space|memory-region): (.*)$/.exec(line);
    if (header !== null) {
      if (open.length > 0) names = [];
      open = [];
      if (header[1] === 'address-space') names.push(header[2] ?? '');
      continue;
    }
    const [, indentation, start, end, priority, kind, rest] = NODE.exec(line) ?? [];
    if (indentation === undefined || start === undefined || end === undefined) continue;
    const indent = indentation.length;
    while ((open.at(-1)?.indent ?? -1) >= indent) open.pop();
    const parent = open.at(-1);
    const hidden = rest?.endsWith(' [disabled]') === true || (parent && !parent.node);
    const node = hidden ? undefined : treeNode({ start, end, priority, kind, rest, line });
    open.push({ indent, node });
    if (node === undefined) continue;
    if (parent?.node === undefined) sections.push({ addressSpaces: names, root: node });
    else parent.node.children.push(node);
  }
  return sections;
}

interface NodeText {
  readonly start: string;
  readonly end: string;
  readonly priority: string | undefined;
  readonly kind: string | undefined;
  readonly rest: string | undefined;
  readonly line: string;
}

function treeNode({ start, end, priority, kind = '', rest = '', line }: NodeText): Growing {
  const [, target, offset] = ALIAS.exec(rest) ?? [];
  return {
    start: fromHex(start),
    end: fromHex(end),
    priority: Number(priority),
    // Persistent memory is mapped as any other.
    kind: kind.replace(/^nv-/, ''),
    line: line.trim(),
    name: rest.replace(/ (?:owner|parent):\{[^}]*\}/g, ''),
    alias: target === undefined ? undefined : { target, offset: fromHex(offset ?? '0') },
    children: [],
  };
}

export function fromHex(digits: string): number {
  return Number(`0x${digits}`);
}
