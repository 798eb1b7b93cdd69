import type { TraceTarget } from './trace-batch.ts';

/** The bytes by which the decoder knows a target again without cutting its name out. */
export interface TargetMemo {
  readonly target: number;
  /** `NAME:regionN+0x` of a vfio line; `NAME'` and the newline of a memory_region_ops line. */
  readonly bytes: Uint8Array;
  /** Host pointer of a MemoryRegion. */
  readonly pointerLo: number;
  readonly pointerHi: number;
}

/** More targets than any QEMU has: a log that names more is damaged or hostile. */
const MAX_TARGETS = 65_535;
/** vfio targets that are looked for by comparing; a device has six BARs. */
const MAX_VFIO_MEMOS = 32;

/** What the lines of a log go to, each once; its index stands in the batches. */
export class TargetTable {
  readonly targets: TraceTarget[] = [];
  readonly #index = new Map<string, number>();
  readonly #vfio: TargetMemo[] = [];
  readonly #memoryRegions = new Map<number, TargetMemo>();
  #last: TargetMemo | undefined;

  /** The index of a target, or -1 where there are too many. */
  intern(target: TraceTarget): number {
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

  #remember(target: TraceTarget, id: number): void {
    if (target.kind === 'vfio-region' && this.#vfio.length < MAX_VFIO_MEMOS) {
      const text = `${target.device}:region${target.region}+0x`;
      const memo = { target: id, bytes: latin1(text), pointerLo: 0, pointerHi: 0 };
      this.#vfio.push(memo);
    } else if (target.kind === 'memory-region') {
      const digits = target.pointer.padStart(16, '0');
      const pointerLo = parseInt(digits.slice(8), 16);
      const pointerHi = parseInt(digits.slice(0, 8), 16);
      const memo = { target: id, bytes: latin1(`${target.name}'\n`), pointerLo, pointerHi };
      // A pointer that is used again after a hot-unplug takes its new name.
      this.#last = undefined;
      this.#memoryRegions.set(pointerKey(pointerLo, pointerHi), memo);
    }
  }

  /** PERF: the vfio target whose bytes stand at `at`. */
  findVfio(bytes: Uint8Array, at: number): TargetMemo | undefined {
    const memos = this.#vfio;
    next: for (let m = 0; m < memos.length; m++) {
      const memo = memos[m]!;
      const wanted = memo.bytes;
      // Names of one host differ in their last bytes, so that is where to look first.
      for (let i = wanted.length - 1; i >= 0; i--) {
        if (bytes[at + i] !== wanted[i]) continue next;
      }
      return memo;
    }
    return undefined;
  }

  /** PERF: the memory region at a host pointer. */
  findMemoryRegion(lo: number, hi: number): TargetMemo | undefined {
    const last = this.#last;
    if (last !== undefined && last.pointerLo === lo && last.pointerHi === hi) return last;
    const memo = this.#memoryRegions.get(pointerKey(lo, hi));
    if (memo === undefined || memo.pointerLo !== lo || memo.pointerHi !== hi) return undefined;
    this.#last = memo;
    return memo;
  }
}

/** A number for a pointer: exact below 2^53, and checked against the halves where it is not. */
function pointerKey(lo: number, hi: number): number {
  return hi * 0x1_0000_0000 + lo;
}

function latin1(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'latin1'));
}
