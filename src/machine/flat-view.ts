/**
 * What the guest reaches in its memory and I/O ports: QEMU's FlatView (system/memory.c,
 * render_memory_region), made of the text of HMP `info mtree`.
 *
 * `info mtree -f` prints it, and must not be asked: for every address space that shares a view it keeps
 * a reference for good (mtree_info_flatview takes one a space and gives back one a view; seen on 7.2,
 * 10.0 and 11.1), so that a device which is unplugged later is never let go: no DEVICE_DELETED, and a
 * passed-through one stays with QEMU.
 */
import type { QmpClient } from '../qmp/client.ts';
import type { TreeNode, TreeSection } from './mtree-tree.ts';

/** What a guest's access to these addresses reaches. */
export interface FlatRange {
  readonly space: 'memory' | 'io';
  /** First and last address; exact below 2^53. */
  readonly start: number;
  readonly end: number;
  /** QEMU's word: `i/o` is trapped; `ram`, `ramd`, `rom`, `romd` are mapped into the guest. */
  readonly kind: string;
  readonly name: string;
  /** Where in the region the range begins. */
  readonly regionOffset: number;
  /** How it is known: the line of `info mtree`, or what `gpa2hva` answered. */
  readonly line: string;
}

/** Addresses that are looked at; inclusive. */
export interface AddressWindow {
  readonly space: FlatRange['space'];
  readonly start: number;
  readonly end: number;
}

/** What is at one address of memory. */
export type Probe = (address: number) => Promise<'ram' | 'i/o' | 'nothing'>;

/** Aliases of aliases: QEMU's own machines have three in a row. */
const MAX_DEPTH = 16;
/** Each turn finds a container, and devices nest a few. */
const MAX_TURNS = 32;

/** The ranges in these windows, in the order of their addresses. Throws as `QmpClient.execute`. */
export async function readFlatView(
  qmp: QmpClient,
  sections: readonly TreeSection[],
  windows: readonly AddressWindow[],
): Promise<readonly FlatRange[]> {
  return flatView(sections, windows, (address) => probeWith(qmp, address));
}

async function probeWith(qmp: QmpClient, address: number): Promise<'ram' | 'i/o' | 'nothing'> {
  const answer = await qmp.hmp(`gpa2hva 0x${address.toString(16)}`);
  if (/^Host virtual address/m.test(answer)) return 'ram';
  // What is not understood is no ground to say that accesses are seen.
  return /is not RAM/.test(answer) ? 'i/o' : 'nothing';
}

/**
 * The text does not say which regions are containers, whose holes let through what lies below. `probe`
 * tells: a region that is on top of an address where there is nothing has no say there.
 */
export async function flatView(
  sections: readonly TreeSection[],
  windows: readonly AddressWindow[],
  probe: Probe,
): Promise<readonly FlatRange[]> {
  const containers = new Set<TreeNode>();
  const known = new Map<number, 'ram' | 'i/o'>();
  for (let turn = 0; ; turn++) {
    const found = windows.flatMap((window) => render(window, sections, containers));
    let isNew = false;
    for (const { range, node } of found) {
      if (range.space === 'io' || range.kind !== 'i/o' || known.has(range.start)) continue;
      const what = await probe(range.start);
      if (what !== 'nothing') known.set(range.start, what);
      else {
        containers.add(node);
        isNew = true;
      }
    }
    if (isNew && turn < MAX_TURNS) continue;
    return found
      .filter(({ node }) => !containers.has(node))
      .map(({ range }) => (known.get(range.start) === 'ram' ? asRam(range) : range))
      .toSorted((a, b) => a.start - b.start);
  }
}

function asRam(range: FlatRange): FlatRange {
  if (range.space === 'io') return range;
  return { ...range, kind: 'ram', line: `gpa2hva: RAM, under ${range.line}` };
}

interface Rendered {
  readonly range: FlatRange;
  readonly node: TreeNode;
}

/** As QEMU renders a space: what is on top first, each taking what is still free. */
function render(
  { space, start, end }: AddressWindow,
  sections: readonly TreeSection[],
  containers: ReadonlySet<TreeNode>,
): Rendered[] {
  const rendered: Rendered[] = [];
  let free: { readonly start: number; readonly end: number }[] = [{ start, end }];
  let depth = 0;

  function take(node: TreeNode, shift: number, first: number, last: number): void {
    const rest: typeof free = [];
    for (const hole of free) {
      const from = Math.max(hole.start, first);
      const to = Math.min(hole.end, last);
      if (from > to) {
        rest.push(hole);
        continue;
      }
      if (hole.start < from) rest.push({ start: hole.start, end: from - 1 });
      if (hole.end > to) rest.push({ start: to + 1, end: hole.end });
      const { kind, name, line } = node;
      const regionOffset = from - shift - node.start;
      rendered.push({
        node,
        range: { space, start: from, end: to, kind, name, regionOffset, line },
      });
    }
    free = rest;
  }

  function walk(node: TreeNode, shift: number, low: number, high: number): void {
    const first = Math.max(low, node.start + shift);
    const last = Math.min(high, node.end + shift);
    if (first > last || depth > MAX_DEPTH || free.length === 0) return;
    if (node.alias !== undefined) {
      const { target, offset } = node.alias;
      depth++;
      // Of two regions of one name only one has something here.
      for (const { addressSpaces, root } of sections) {
        if (addressSpaces.length > 0 || root.name !== target) continue;
        walk(root, node.start + shift - offset - root.start, first, last);
      }
      depth--;
      return;
    }
    for (const child of node.children.toSorted((a, b) => b.priority - a.priority)) {
      walk(child, shift, first, last);
    }
    const isContainer = space === 'io' ? node.children.length > 0 : containers.has(node);
    if (!isContainer) take(node, shift, first, last);
  }

  const name = space === 'io' ? 'I/O' : 'memory';
  const section = sections.find(({ addressSpaces }) => addressSpaces.includes(name));
  if (section !== undefined) walk(section.root, 0, start, end);
  return rendered;
}
