import type { FlatRange } from '../../src/machine/flat-view.ts';

const RANGE = /^\s*([0-9a-f]{8,16})-([0-9a-f]{8,16}) \(prio -?\d+, ([^)]+)\): (.+)$/;

/** What may follow the name: offset in the region, owner (`-o`), the accelerators that have it. */
const OFFSET = / @([0-9a-f]{8,16})$/;
const OWNER = / (?:owner|parent):\{[^}]*\}/g;
const ACCELERATOR = /(?: (?:KVM|HVF|hvf|WHPX|NVMM|MSHV|mshv|xen))+$/;

/**
 * Reads the text of HMP `info mtree -f` (QEMU's `system/memory.c`, `mtree_print_flatview`): the ranges of
 * the vCPUs' memory and of the I/O ports, in QEMU's order. Views of other masters (SMM, devices' DMA) and
 * lines of any other shape are passed over. For tests alone: asking QEMU for it has a price
 * (`src/machine/flat-view.ts`).
 */
export function parseFlatView(text: string): readonly FlatRange[] {
  const ranges: FlatRange[] = [];
  const taken = new Set<FlatRange['space']>();
  let space: FlatRange['space'] | undefined;
  for (const raw of text.split(/\r?\n/)) {
    if (raw.startsWith('FlatView')) {
      if (space !== undefined) taken.add(space);
      space = undefined;
      continue;
    }
    const named = spaceNamed(raw);
    // The first view of a space is the one: -f prints each view once, with all of its names.
    if (named !== undefined && !taken.has(named)) space ??= named;
    if (space === undefined) continue;
    const range = parseRange(raw, space);
    if (range !== undefined) ranges.push(range);
  }
  return ranges;
}

/** The space that a header line ` AS "memory", root: system` or ` Root memory region: io` tells. */
function spaceNamed(line: string): FlatRange['space'] | undefined {
  const as = /^ AS "(.*)", root: /.exec(line)?.[1];
  if (as === 'memory') return 'memory';
  if (as === 'I/O') return 'io';
  const root = /^ Root memory region: (.*)$/.exec(line)?.[1];
  if (root === 'system' || root === 'system/memory') return 'memory';
  return root === 'io' || root === 'system/io' ? 'io' : undefined;
}

function parseRange(raw: string, space: FlatRange['space']): FlatRange | undefined {
  const [, start, end, kind, tail] = RANGE.exec(raw) ?? [];
  if (start === undefined || end === undefined || kind === undefined || tail === undefined) {
    return undefined;
  }
  const rest = tail.replace(OWNER, '').replace(ACCELERATOR, '').trimEnd();
  return {
    space,
    start: fromHex(start),
    end: fromHex(end),
    // Persistent memory is mapped as any other.
    kind: kind.replace(/^nv-/, ''),
    name: rest.replace(OFFSET, ''),
    regionOffset: fromHex(OFFSET.exec(rest)?.[1] ?? '0'),
    line: raw.trim(),
  };
}

function fromHex(digits: string): number {
  return Number(`0x${digits}`);
}
