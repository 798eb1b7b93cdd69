/** Names of vendors and devices from the system's pci.ids (hwdata); see pci.ids(5). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hex4 } from '../base/format.ts';

const PLACES = ['usr/share/hwdata/pci.ids', 'usr/share/misc/pci.ids'];

/** Looks names up where they stand in the file's text: it is 1.4 MB, and few are ever asked for. */
export class PciIds {
  readonly #text: Buffer;

  /** That of the system below `root`; knows no name if there is none. */
  constructor(root: string) {
    this.#text = readFirst(root);
  }

  vendor(vendorId: number): string | undefined {
    const at = this.#vendorAt(vendorId);
    return at < 0 ? undefined : this.#nameAt(at);
  }

  device(vendorId: number, deviceId: number): string | undefined {
    const vendorAt = this.#vendorAt(vendorId);
    if (vendorAt < 0) return undefined;
    const at = this.#text.indexOf(`\n\t${hex4(deviceId)}  `, vendorAt);
    // Vendors' lines begin at the margin, and the next one ends this one's devices.
    return at < 0 || at > this.#nextVendor(vendorAt) ? undefined : this.#nameAt(at);
  }

  #vendorAt(vendorId: number): number {
    return this.#text.indexOf(`\n${hex4(vendorId)}  `);
  }

  /** Where a line begins, behind the one at `at`, that is neither indented, nor a comment. */
  #nextVendor(at: number): number {
    for (let line = at + 1; ;) {
      line = this.#text.indexOf('\n', line) + 1;
      if (line === 0 || line === this.#text.length) return this.#text.length;
      if (!INSIDE.has(this.#text[line] ?? 0)) return line;
    }
  }

  /** What follows the id and two spaces, in the line whose newline before it is at `at`. */
  #nameAt(at: number): string {
    const start = this.#text.indexOf('  ', at) + 2;
    const end = this.#text.indexOf('\n', start);
    return this.#text.toString('utf8', start, end < 0 ? undefined : end).trim();
  }
}

/** A tab, `#`, and the end of an empty line. */
const INSIDE: ReadonlySet<number> = new Set([0x09, 0x23, 0x0a]);

function readFirst(root: string): Buffer {
  for (const place of PLACES) {
    try {
      return readFileSync(join(root, place));
    } catch {
      // Not installed there.
    }
  }
  return Buffer.alloc(0);
}
