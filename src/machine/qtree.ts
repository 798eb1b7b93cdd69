import type { Bar } from '../model/device.ts';
import { fromHex } from './mtree-tree.ts';
import { emptyBars } from './query-pci.ts';

/** A PCI function as `info qtree` prints it. */
export interface QtreeFunction {
  /** Name of its bus, e.g. `pcie.0`, `rp1`. */
  readonly busName: string;
  /** Number of that bus; 0 while it has none. */
  readonly bus: number;
  /** `02.0` on that bus. */
  readonly address: string;
  readonly type: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** Class and subclass in the upper 16 of 24 bits, where QEMU has no name for it; else 0. */
  readonly classCode: number;
  /** `BAR_SLOTS` of them. Flags know I/O from memory, no more. */
  readonly bars: readonly Bar[];
}

const ALL_ONES = 'f'.repeat(16);

/**
 * Reads the text of HMP `info qtree` (QEMU's `hw/pci/pci-hmp-cmds.c`, pcibus_dev_print). It also
 * has what `query-pci` leaves out: functions behind a bridge that firmware has not numbered yet.
 */
export function parseQtree(text: string): readonly QtreeFunction[] {
  const found: QtreeFunction[] = [];
  const open: { readonly indent: number; readonly bus?: string; readonly type?: string }[] = [];
  let bars: Bar[] = [];
  for (const line of text.split(/\r?\n/)) {
    const indent = line.search(/\S/);
    if (indent === -1) continue;
    const opened = /^ *(bus|dev): ([^\s,]+)/.exec(line);
    if (opened !== null) {
      while ((open.at(-1)?.indent ?? -1) >= indent) open.pop();
      const name = opened[2] ?? '';
      open.push(opened[1] === 'bus' ? { indent, bus: name } : { indent, type: name });
      continue;
    }
    const pci =
      /^ *class (.*), addr ([0-9a-f]+):([0-9a-f]+\.[0-7]), pci id ([0-9a-f]+):([0-9a-f]+)/.exec(
        line,
      );
    if (pci !== null) {
      bars = emptyBars();
      found.push({
        busName: open.at(-2)?.bus ?? '',
        bus: fromHex(pci[2] ?? '0'),
        address: pci[3] ?? '',
        type: open.at(-1)?.type ?? '',
        vendorId: fromHex(pci[4] ?? '0'),
        deviceId: fromHex(pci[5] ?? '0'),
        classCode: fromHex(/^Class ([0-9a-f]{4})$/.exec(pci[1] ?? '')?.[1] ?? '0') << 8,
        bars,
      });
      continue;
    }
    const bar = /^ *bar (\d): (i\/o|mem) at 0x([0-9a-f]+) \[0x([0-9a-f]+)\]/.exec(line);
    if (bar === null) continue;
    const assigned = bar[3] !== ALL_ONES;
    const start = assigned ? fromHex(bar[3] ?? '0') : 0;
    // Unassigned, the last address has wrapped around: size - 2.
    const sizeBytes = fromHex(bar[4] ?? '0') + (assigned ? 1 - start : 2);
    bars[Number(bar[1])] = { start, flags: bar[2] === 'i/o' ? 1 : 0, sizeBytes };
  }
  return found;
}
