import { MmioError } from '../base/errors.ts';
import type { AccessBatch } from '../model/access-batch.ts';
import { bytesOf, Field, MAX_OP, MAX_ROWS, MAX_SPACE, MAX_SPAN_NS, WIDTHS } from './columns.ts';
import { ProtoCursor, varintBytes, Wire } from './proto-cursor.ts';
import { TargetDictionary } from './target-dictionary.ts';

/** `Frame.access_batch` in proto/mmiobridge.proto. */
const ACCESS_BATCH = 2;

// PERF: the kind byte is put together by table; what no kind can say sets a bit that no kind has.
const NO_KIND = 0x80;
const OP_BITS = new Uint8Array(256).fill(NO_KIND);
const SPACE_BITS = new Uint8Array(256).fill(NO_KIND);
const WIDTH_BITS = new Uint8Array(256).fill(NO_KIND);
for (let op = 0; op <= MAX_OP; op++) OP_BITS[op] = op;
for (let space = 0; space <= MAX_SPACE; space++) SPACE_BITS[space] = space << 2;
for (const [code, width] of WIDTHS.entries()) WIDTH_BITS[width] = code << 4;

interface Column {
  readonly field: number;
  readonly bytes: Uint8Array;
}

/**
 * Turns batches into the payloads of frames, in two steps so that the caller can make room:
 * `take` prepares as many rows as one frame can hold, `writeTo` copies them out. Holds views of the
 * batch between the two. The bytes are those of a `Frame` of proto/mmiobridge.proto.
 */
export class ColumnEncoder {
  /** Bytes that `writeTo` will write. */
  byteLength = 0;

  readonly #targets = new TargetDictionary();
  readonly #scalars = new Uint8Array(64);
  readonly #columns: Column[] = [];
  #batchBytes = 0;
  #scalarBytes = 0;

  #timeDelta = new Uint32Array(0);
  #kind = new Uint8Array(0);
  #target = new Uint8Array(0);
  #offsetLow = new Uint32Array(0);
  #offsetHigh = new Uint32Array(0);

  /**
   * Prepares a frame of the rows from `from` on; returns the row at which the next frame begins,
   * `batch.length` after the last. Only the last frame of a batch carries its position: a reader that
   * resumes there has seen all of it. Throws MmioError `damaged` for an op, space or width that the
   * model does not have.
   */
  take(batch: AccessBatch, from: number): number {
    this.#grow(Math.min(batch.length - from, MAX_ROWS));
    this.#columns.length = 0;
    let to = this.#takeTime(batch, from, Math.min(batch.length, from + MAX_ROWS));
    this.#targets.clear();
    to = this.#targets.assign(batch, from, to, this.#target);

    const base = this.#baseOf(batch, from, to);
    this.#addKind(batch, from, to);
    this.#addTargets(to - from);
    this.#addOffset(batch, from, to);
    this.#columns.push({ field: Field.valueLow, bytes: bytesOf(batch.valueLo, from, to) });
    this.#addUnlessZero(Field.valueHigh, batch.valueHi, from, to);
    const cpu = this.#addCpu(batch, from, to);
    this.#addUnlessZero(Field.pcLow, batch.pcLo, from, to);
    this.#addUnlessZero(Field.pcHigh, batch.pcHi, from, to);
    this.#putScalars(to - from, base, cpu, to === batch.length ? batch.position : undefined);

    this.#batchBytes = this.#scalarBytes;
    for (const { bytes } of this.#columns) {
      this.#batchBytes += 1 + varintBytes(bytes.length) + bytes.length;
    }
    this.byteLength = 1 + varintBytes(this.#batchBytes) + this.#batchBytes;
    return to;
  }

  /** Copies what was prepared to `out`, from `at` on, where there must be `byteLength` bytes. */
  writeTo(out: Uint8Array, at: number): void {
    const cursor = new ProtoCursor(out, at);
    cursor.tag(ACCESS_BATCH, Wire.bytes);
    cursor.varint(this.#batchBytes);
    out.set(this.#scalars.subarray(0, this.#scalarBytes), cursor.at);
    cursor.at += this.#scalarBytes;
    for (const { field, bytes } of this.#columns) cursor.bytes(field, bytes);
  }

  #grow(rows: number): void {
    if (rows <= this.#kind.length) return;
    this.#timeDelta = new Uint32Array(rows);
    this.#kind = new Uint8Array(rows);
    this.#target = new Uint8Array(rows);
    this.#offsetLow = new Uint32Array(rows);
    this.#offsetHigh = new Uint32Array(rows);
  }

  /** The first row, at most `to`, that is too far in time from those before it. */
  #takeTime({ timeNs }: AccessBatch, from: number, to: number): number {
    let min = Infinity;
    let max = -Infinity;
    for (let row = from; row < to; row++) {
      const time = timeNs[row]!;
      if (time < min) min = time;
      if (time > max) max = time;
      if (max - min > MAX_SPAN_NS) return row;
    }
    return to;
  }

  /** Adds the distances from the earliest access, whose time it returns. */
  #baseOf({ timeNs }: AccessBatch, from: number, to: number): number {
    if (from === to) return 0;
    let base = Infinity;
    for (let row = from; row < to; row++) {
      if (timeNs[row]! < base) base = timeNs[row]!;
    }
    const deltas = this.#timeDelta;
    let any = 0;
    for (let row = from; row < to; row++) {
      const delta = timeNs[row]! - base;
      deltas[row - from] = delta;
      any |= delta;
    }
    if (any !== 0) {
      this.#columns.push({ field: Field.timeDelta, bytes: bytesOf(deltas, 0, to - from) });
    }
    return base;
  }

  #addKind({ op, space, width }: AccessBatch, from: number, to: number): void {
    const kinds = this.#kind;
    let all = 0;
    for (let row = from; row < to; row++) {
      const kind = OP_BITS[op[row]!]! | SPACE_BITS[space[row]!]! | WIDTH_BITS[width[row]!]!;
      kinds[row - from] = kind;
      all |= kind;
    }
    if ((all & NO_KIND) !== 0) throw notAnAccess(kinds, { op, space, width }, from);
    this.#columns.push({ field: Field.kind, bytes: bytesOf(kinds, 0, to - from) });
  }

  #addTargets(rows: number): void {
    const { region, mapId, length } = this.#targets;
    this.#columns.push({ field: Field.targetRegion, bytes: bytesOf(region, 0, length) });
    this.#columns.push({ field: Field.targetMapId, bytes: bytesOf(mapId, 0, length) });
    if (length > 1) {
      this.#columns.push({ field: Field.target, bytes: bytesOf(this.#target, 0, rows) });
    }
  }

  #addOffset({ offset }: AccessBatch, from: number, to: number): void {
    const low = this.#offsetLow;
    let max = 0;
    for (let row = from; row < to; row++) {
      const bytes = offset[row]!;
      low[row - from] = bytes;
      if (bytes > max) max = bytes;
    }
    this.#columns.push({ field: Field.offsetLow, bytes: bytesOf(low, 0, to - from) });
    if (max < 2 ** 32) return;
    const high = this.#offsetHigh;
    for (let row = from; row < to; row++) high[row - from] = Math.floor(offset[row]! / 2 ** 32);
    this.#columns.push({ field: Field.offsetHigh, bytes: bytesOf(high, 0, to - from) });
  }

  #addUnlessZero(field: number, column: Uint32Array, from: number, to: number): void {
    let any = 0;
    for (let row = from; row < to; row++) any |= column[row]!;
    if (any !== 0) this.#columns.push({ field, bytes: bytesOf(column, from, to) });
  }

  /** Adds the column, or returns the one vCPU that all rows have. */
  #addCpu({ cpu }: AccessBatch, from: number, to: number): number {
    if (from === to) return 0;
    const first = cpu[from]!;
    let differs = 0;
    for (let row = from; row < to; row++) differs |= cpu[row]! ^ first;
    if (differs === 0) return first;
    this.#columns.push({ field: Field.cpuColumn, bytes: bytesOf(cpu, from, to) });
    return 0;
  }

  #putScalars(rows: number, base: number, cpu: number, position: AccessBatch['position']): void {
    const cursor = new ProtoCursor(this.#scalars, 0);
    cursor.uint32(Field.count, rows);
    cursor.double(Field.baseTimeNs, base);
    if (cpu !== 0) cursor.sint32(Field.cpu, cpu);
    if (position !== undefined) {
      cursor.tag(Field.position, Wire.bytes);
      cursor.varint(1 + varintBytes(position.segment) + 9);
      cursor.uint32(1, position.segment);
      cursor.double(2, position.offset);
    }
    this.#scalarBytes = cursor.at;
  }
}

function notAnAccess(
  kinds: Uint8Array,
  { op, space, width }: Pick<AccessBatch, 'op' | 'space' | 'width'>,
  from: number,
): MmioError {
  const row = from + kinds.findIndex((kind) => (kind & NO_KIND) !== 0);
  return new MmioError('damaged', 'a source made an access that captures have no room for', {
    evidence: `op ${op[row]}, space ${space[row]}, width ${width[row]} bytes`,
  });
}
