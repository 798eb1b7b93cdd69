import type { RawTarget } from '../raw-events.ts';

/** Longer names go the plain way, so that no comparison looks further ahead than this. */
export const MAX_TEMPLATE_BYTES = 200;

/** Text that is looked for in lines. */
export interface Template {
  /** At least 8. */
  readonly length: number;
  /**
   * PERF: its bytes as doubles, eight at a time: at 0, 8, 16, … less the last. Two doubles of text
   * are equal if and only if their bytes are (a NaN would need a byte of 0x7f or above, and then
   * nothing matches and the line goes the plain way).
   */
  readonly words: Float64Array;
  /** The last eight bytes, which may overlap those before. */
  readonly last: number;
  readonly target: number;
}

/** Throws RangeError for a text of less than eight bytes. */
export function template(text: string, target = -1): Template {
  const bytes = Buffer.from(text, 'latin1');
  const words = new Float64Array((bytes.length - 1) >> 3);
  for (let i = 0; i < words.length; i++) words[i] = bytes.readDoubleLE(8 * i);
  return { length: bytes.length, words, last: bytes.readDoubleLE(bytes.length - 8), target };
}

/** PERF: whether a template's bytes stand at `at`. The last come first: there lines differ. */
export function matches(view: DataView, at: number, wanted: Template): boolean {
  if (view.getFloat64(at + wanted.length - 8, true) !== wanted.last) return false;
  const words = wanted.words;
  for (let i = 0; i < words.length; i++) {
    if (view.getFloat64(at + 8 * i, true) !== words[i]) return false;
  }
  return true;
}

/** By which the decoder knows a MemoryRegion again without cutting its name out. */
export interface MemoryRegionMemo {
  readonly target: number;
  /** Its host pointer. */
  readonly pointerLo: number;
  readonly pointerHi: number;
  /** ` mr 0xPOINTER addr 0x`, and ` name 'NAME'` with the newline. */
  readonly pointer: Template;
  readonly name: Template;
}

/** More targets than any QEMU has: a log that names more is damaged or hostile. */
const MAX_TARGETS = 65_535;
/** vfio targets that are looked for by comparing; a device has six BARs. */
const MAX_VFIO_MEMOS = 32;

/** What the lines of a log go to, each once; its index stands in the batches. */
export class TargetTable {
  readonly targets: RawTarget[] = [];
  readonly #index = new Map<string, number>();
  /** `vfio_region_write  (NAME:regionN+0x`, and the same for reads. */
  readonly vfioWrites: Template[] = [];
  readonly vfioReads: Template[] = [];
  readonly #memoryRegions = new Map<number, MemoryRegionMemo>();
  /** The memory region that was looked for last. */
  last: MemoryRegionMemo | undefined;

  /** The index of a target, or -1 where there are too many. */
  intern(target: RawTarget): number {
    const key = JSON.stringify(target);
    const known = this.#index.get(key);
    if (known !== undefined) {
      // A host pointer that has been another region meanwhile.
      if (target.kind === 'memory-region') this.#remember(target, known);
      return known;
    }
    const id = this.targets.length;
    if (id >= MAX_TARGETS) return -1;
    this.targets.push(target);
    this.#index.set(key, id);
    this.#remember(target, id);
    return id;
  }

  #remember(target: RawTarget, id: number): void {
    if (target.kind === 'vfio-region') {
      const place = `(${target.device}:region${target.region}+0x`;
      if (this.vfioReads.length === MAX_VFIO_MEMOS || place.length > MAX_TEMPLATE_BYTES / 2) return;
      this.vfioWrites.push(template(`vfio_region_write  ${place}`, id));
      this.vfioReads.push(template(`vfio_region_read  ${place}`, id));
    } else if (target.kind === 'memory-region') {
      this.#rememberMemoryRegion(target.pointer, target.name, id);
    }
  }

  #rememberMemoryRegion(pointer: string, name: string, target: number): void {
    const digits = pointer.padStart(16, '0');
    const pointerLo = parseInt(digits.slice(8), 16);
    const pointerHi = parseInt(digits.slice(0, 8), 16);
    const key = pointerKey(pointerLo, pointerHi);
    // A pointer that is used again after a hot-unplug takes its new name.
    this.last = undefined;
    if (name.length > MAX_TEMPLATE_BYTES / 2) this.#memoryRegions.delete(key);
    else {
      this.#memoryRegions.set(key, {
        target,
        pointerLo,
        pointerHi,
        pointer: template(` mr 0x${pointer} addr 0x`),
        name: template(` name '${name}'\n`),
      });
    }
  }

  /** PERF: the memory region at a host pointer. */
  findMemoryRegion(lo: number, hi: number): MemoryRegionMemo | undefined {
    const memo = this.#memoryRegions.get(pointerKey(lo, hi));
    if (memo === undefined || memo.pointerLo !== lo || memo.pointerHi !== hi) return undefined;
    this.last = memo;
    return memo;
  }
}

/** A number for a pointer: exact below 2^53, and checked against the halves where it is not. */
function pointerKey(lo: number, hi: number): number {
  return hi * 0x1_0000_0000 + lo;
}
