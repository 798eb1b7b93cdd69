import { hex } from '../base/format.ts';
import { MmioError } from '../base/errors.ts';
import { AccessBatch, NO_CPU } from '../model/access-batch.ts';
import { bytesOf, MAX_OP, MAX_ROWS, MAX_SPACE, MAX_TARGETS, WIDTHS } from './columns.ts';
import type { mmiobridge } from './generated/types.ts';

/** An `AccessBatch` of proto/mmiobridge.proto; a field that is not there has its default. */
export type BatchMessage = mmiobridge.v1.AccessBatch.$Properties;
type Bytes = Uint8Array | null | undefined;

const NO_KIND = 0xff;
const WIDTH_OF_KIND = new Uint8Array(256).fill(NO_KIND);
for (let kind = 0; kind < 256; kind++) {
  const width = WIDTHS[kind >> 4];
  const known = (kind & 3) <= MAX_OP && ((kind >> 2) & 3) <= MAX_SPACE;
  if (known && width !== undefined) WIDTH_OF_KIND[kind] = width;
}

/** The most that the low half of a value can be, by width; 0 bytes: three of an opcode. */
const MOST_LOW = new Float64Array(17).fill(0xffff_ffff);
MOST_LOW[0] = 0xff_ffff;
MOST_LOW[1] = 0xff;
MOST_LOW[2] = 0xffff;

/** Turns batch messages back into batches. There is one batch, which the next message overwrites. */
export class ColumnDecoder {
  #batch = new AccessBatch(1024);
  #low = new Uint32Array(1024);
  #targetRegion = new Uint16Array(MAX_TARGETS);
  #targetMapId = new Uint32Array(MAX_TARGETS);

  /** Throws MmioError `damaged` if the columns contradict each other, or say what cannot be. */
  decode(message: BatchMessage): AccessBatch {
    const rows = message.count ?? 0;
    if (rows > MAX_ROWS) throw damaged(`a batch of ${rows} accesses; at most ${MAX_ROWS} can be`);
    this.#grow(rows);
    const batch = this.#batch;
    this.#readTime(message, rows);
    this.#readKind(message.kind, rows);
    this.#readTarget(message, rows);
    this.#readOffset(message, rows);
    required(message.valueLow, batch.valueLo, rows, 'value_low');
    optional(message.valueHigh, batch.valueHi, rows, 'value_high');
    this.#requireFitting(rows);
    this.#readCpu(message, rows);
    optional(message.pcLow, batch.pcLo, rows, 'pc_low');
    optional(message.pcHigh, batch.pcHi, rows, 'pc_high');
    batch.position = readPosition(message.position);
    batch.length = rows;
    return batch;
  }

  #grow(rows: number): void {
    if (rows <= this.#batch.capacity) return;
    const capacity = Math.min(Math.max(rows, this.#batch.capacity * 2), MAX_ROWS);
    this.#batch = new AccessBatch(capacity);
    this.#low = new Uint32Array(capacity);
  }

  #readTime(message: BatchMessage, rows: number): void {
    const base = message.baseTimeNs ?? 0;
    const deltas = this.#low;
    optional(message.timeDelta, deltas, rows, 'time_delta');
    const { timeNs } = this.#batch;
    let max = 0;
    for (let row = 0; row < rows; row++) {
      const delta = deltas[row]!;
      if (delta > max) max = delta;
      timeNs[row] = base + delta;
    }
    if (!Number.isSafeInteger(base) || !Number.isSafeInteger(base + max)) {
      throw damaged(`accesses at ${base} ns`);
    }
  }

  #readKind(column: Bytes, rows: number): void {
    const kinds = column ?? EMPTY;
    checkLength(kinds, rows, 1, 'kind');
    const { op, space, width } = this.#batch;
    for (let row = 0; row < rows; row++) {
      const kind = kinds[row]!;
      const bytes = WIDTH_OF_KIND[kind]!;
      if (bytes === NO_KIND) throw damaged(`an access of kind ${hex(kind)}`);
      op[row] = kind & 3;
      space[row] = (kind >> 2) & 3;
      width[row] = bytes;
    }
  }

  /** A value that is wider than its access is none. */
  #requireFitting(rows: number): void {
    const { width, valueLo, valueHi } = this.#batch;
    for (let row = 0; row < rows; row++) {
      const bytes = width[row]!;
      if (valueLo[row]! > MOST_LOW[bytes]! || (bytes < 8 && valueHi[row] !== 0)) {
        throw damaged(`a value of more than ${bytes} bytes`);
      }
    }
  }

  #readTarget(message: BatchMessage, rows: number): void {
    const targets = (message.targetRegion?.length ?? 0) / 2;
    if (!Number.isInteger(targets) || targets > MAX_TARGETS || (targets === 0 && rows > 0)) {
      throw damaged(`a batch of ${rows} accesses to ${targets} targets`);
    }
    required(message.targetRegion, this.#targetRegion, targets, 'target_region');
    required(message.targetMapId, this.#targetMapId, targets, 'target_map_id');
    const { region, mapId } = this.#batch;
    const column = message.target ?? EMPTY;
    if (column.length === 0) {
      region.fill(this.#targetRegion[0]!, 0, rows);
      mapId.fill(this.#targetMapId[0]!, 0, rows);
      return;
    }
    checkLength(column, rows, 1, 'target');
    for (let row = 0; row < rows; row++) {
      const target = column[row]!;
      if (target >= targets) throw damaged(`an access to target ${target} of ${targets}`);
      region[row] = this.#targetRegion[target]!;
      mapId[row] = this.#targetMapId[target]!;
    }
  }

  #readOffset(message: BatchMessage, rows: number): void {
    const low = this.#low;
    const { offset } = this.#batch;
    required(message.offsetLow, low, rows, 'offset_low');
    offset.set(rows === low.length ? low : low.subarray(0, rows));
    if ((message.offsetHigh?.length ?? 0) === 0) return;
    const high = low;
    required(message.offsetHigh, high, rows, 'offset_high');
    for (let row = 0; row < rows; row++) {
      offset[row]! += high[row]! * 2 ** 32;
      if (offset[row]! > Number.MAX_SAFE_INTEGER) throw damaged(`an access at ${offset[row]!}`);
    }
  }

  #readCpu(message: BatchMessage, rows: number): void {
    const { cpu } = this.#batch;
    if ((message.cpuColumn?.length ?? 0) === 0) {
      const only = message.cpu ?? 0;
      if (only < NO_CPU || only > 0x7fff) throw damaged(`accesses by vCPU ${only}`);
      cpu.fill(only, 0, rows);
      return;
    }
    required(message.cpuColumn, cpu, rows, 'cpu_column');
    for (let row = 0; row < rows; row++) {
      if (cpu[row]! < NO_CPU) throw damaged(`an access by vCPU ${cpu[row]}`);
    }
  }
}

const EMPTY = new Uint8Array(0);

function readPosition(message: BatchMessage['position']): AccessBatch['position'] {
  if (message === undefined || message === null) return undefined;
  const { segment, offset } = message;
  if (!Number.isSafeInteger(offset ?? 0) || (offset ?? 0) < 0) {
    throw damaged(`a source position of ${offset} bytes`);
  }
  return { segment: segment ?? 0, offset: offset ?? 0 };
}

type Column = Uint16Array | Int16Array | Uint32Array;

function required(bytes: Bytes, into: Column, rows: number, name: string): void {
  checkLength(bytes ?? EMPTY, rows, into.BYTES_PER_ELEMENT, name);
  bytesOf(into, 0, rows).set(bytes ?? EMPTY);
}

function optional(bytes: Bytes, into: Column, rows: number, name: string): void {
  if ((bytes?.length ?? 0) === 0) into.fill(0, 0, rows);
  else required(bytes, into, rows, name);
}

function checkLength(bytes: Uint8Array, rows: number, size: number, name: string): void {
  if (bytes.length !== rows * size) {
    throw damaged(`column ${name} has ${bytes.length} bytes; ${rows} rows have ${rows * size}`);
  }
}

function damaged(evidence: string): MmioError {
  return new MmioError('damaged', 'a batch of accesses has an impossible value', { evidence });
}
