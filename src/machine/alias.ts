/*
 * Where QEMU's log prints an address that is not the one the guest used.
 *
 * memory_region_ops_* prints what memory_region_to_absolute_addr (QEMU's system/memory.c) makes of
 * the offset: the region's own address, plus those of its containers. A region has one container,
 * and an alias is none, so a region that the guest reaches through an alias is logged where its
 * container has it, not where the alias does:
 *
 *   rtl8139          the I/O BAR is the region, the memory BAR an alias of it. An access to the
 *                    memory BAR is logged as I/O port + offset; as the bare offset while the I/O
 *                    BAR was never mapped; with the last port once it is unmapped
 *   ati-vga          the other way round: the I/O BAR is logged as an address in the memory BAR
 *   intel-hda        the mirror at +0x2000 is logged as the registers at +0, which drivers use
 *
 * `info mtree` prints a region under `memory-region: NAME` if an alias points to it, at its own
 * address; where it has a container, it also shows in that one's tree, at the sum that the log
 * prints. A PCI bridge's windows are aliases too, but at the
 * addresses that they stand for: nothing changes.
 */
import type { TreeNode, TreeSection } from './mtree-tree.ts';

/** A part of a region that the guest reaches at `gpaStart`, and the log prints elsewhere. */
export interface AliasRegion {
  /** As in the log: `name 'rtl8139'`. Names need not be unique in a machine. */
  readonly name: string;
  readonly space: 'memory' | 'io';
  /** Guest-physical address (or I/O port) of the part's first byte. */
  readonly gpaStart: number;
  readonly lengthBytes: number;
  /** What to subtract from a logged address to get the offset in the region. */
  readonly logBase: number;
  /** Where in the region the part begins: GPA = gpaStart + logged - logBase - regionOffset. */
  readonly regionOffset: number;
  /** The same name and logged address can also mean an access to another place. */
  readonly ambiguous: boolean;
  /** That place is the address that is logged, in memory: drivers use it, and not the alias. */
  readonly shadowed: boolean;
}

type Placement = Omit<AliasRegion, 'shadowed'>;

/** Aliases of aliases: QEMU's own machines have three in a row. */
const MAX_DEPTH = 16;

/**
 * The regions whose logged addresses are not the guest's, from what HMP `info mtree` tells (not
 * `-f`, which has no aliases). True for that moment: a BAR that moves, I/O or memory, changes it.
 */
export function aliasRegions(sections: readonly TreeSection[]): readonly AliasRegion[] {
  const placements = [
    ...placementsIn('memory', 'memory', sections),
    ...placementsIn('I/O', 'io', sections),
  ];
  return placements
    .filter((placement) => !isTrue(placement))
    .map((placement) => ({
      ...placement,
      ambiguous: placement.ambiguous || placements.some((other) => isConfusable(placement, other)),
      shadowed: placements.some((other) => isTrue(other) && shadows(other, placement)),
    }));
}

/** Whether all that is logged of the alias is logged of this one, too, at its own address. */
function shadows(direct: Placement, alias: Placement): boolean {
  if (direct.name !== alias.name) return false;
  // Of a BAR in memory and one of ports drivers prefer the one in memory.
  if (direct.space === 'io' && alias.space === 'memory') return false;
  const logged = alias.logBase + alias.regionOffset;
  return (
    logged >= direct.gpaStart && logged + alias.lengthBytes <= direct.gpaStart + direct.lengthBytes
  );
}

/** Whether a logged address of it is the guest's. */
function isTrue({ gpaStart, logBase, regionOffset }: Placement): boolean {
  return gpaStart === logBase + regionOffset;
}

function isConfusable(a: Placement, b: Placement): boolean {
  if (a === b || a.name !== b.name) return false;
  const aLog = a.logBase + a.regionOffset;
  const bLog = b.logBase + b.regionOffset;
  if (a.space === b.space && a.gpaStart - aLog === b.gpaStart - bLog) return false;
  return aLog < bLog + b.lengthBytes && bLog < aLog + a.lengthBytes;
}

function placementsIn(
  addressSpace: string,
  space: Placement['space'],
  sections: readonly TreeSection[],
): Placement[] {
  const found = new Map<string, Placement>();
  let depth = 0;

  /**
   * `toGuest` and `toLog` turn a printed address into the guest's and the log's; `low` to `high` is
   * what the aliases on the way let through.
   */
  function walk(node: TreeNode, toGuest: number, toLog: Shift, low: number, high: number): void {
    const first = Math.max(low, node.start + toGuest);
    const last = Math.min(high, node.end + toGuest);
    if (first > last || depth > MAX_DEPTH) return;
    if (node.alias === undefined) {
      if (node.kind === 'i/o') {
        const placement: Placement = {
          name: node.name,
          space,
          gpaStart: first,
          lengthBytes: last - first + 1,
          logBase: node.start + toLog.bytes,
          regionOffset: first - toGuest - node.start,
          ambiguous: toLog.guessed,
        };
        found.set(JSON.stringify(placement), placement);
      }
      for (const child of node.children) walk(child, toGuest, toLog, first, last);
      return;
    }
    const { target, offset } = node.alias;
    depth++;
    for (const section of sections) {
      const { root } = section;
      if (section.addressSpaces.length > 0 || root.name !== target) continue;
      const shift = node.start + toGuest - offset - root.start;
      walk(root, shift, logShift(section, sections), first, last);
    }
    depth--;
  }

  const section = sections.find(({ addressSpaces }) => addressSpaces.includes(addressSpace));
  if (section !== undefined) {
    walk(section.root, 0, { bytes: 0, guessed: false }, 0, Infinity);
  }
  return [...found.values()];
}

interface Shift {
  readonly bytes: number;
  /** Several regions of this name, in different places: which one it is cannot be told. */
  readonly guessed: boolean;
}

/** From the addresses printed under `memory-region: NAME` to those of the log. */
function logShift(section: TreeSection, sections: readonly TreeSection[], depth = 0): Shift {
  const { root } = section;
  const shifts = new Set<number>();
  let guessed = false;
  for (const other of sections) {
    if (other === section || depth > MAX_DEPTH) continue;
    for (const child of other.root.children) collect(child, other);
  }

  function collect(node: TreeNode, other: TreeSection): void {
    const isIt = node.alias === undefined && node.name === root.name && sameSize(node, root);
    if (isIt) {
      const inAddressSpace = other.addressSpaces.length > 0;
      const outer = inAddressSpace ? undefined : logShift(other, sections, depth + 1);
      guessed ||= outer?.guessed === true;
      shifts.add(node.start - root.start + (outer?.bytes ?? 0));
    }
    for (const child of node.children) collect(child, other);
  }

  const [bytes = 0] = shifts;
  return { bytes, guessed: guessed || shifts.size > 1 };
}

function sameSize(a: TreeNode, b: TreeNode): boolean {
  return a.end - a.start === b.end - b.start;
}
