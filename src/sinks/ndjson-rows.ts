import { type AccessBatch, NO_CPU, Op, Space } from '../model/access-batch.ts';
import type { RecordingEvent } from '../model/events.ts';
import type { Tables } from '../model/tables.ts';
import { Addresses } from './addresses.ts';
import { RegionFragments, type RegionName } from './region-fragments.ts';
import { putBytes, putDecimal, putHex64, putHexNumber } from './text-digits.ts';
import type { TextWriter } from './text-writer.ts';

/** More than the longest line of an access takes: both names, escaped, and 300 bytes besides. */
const ROW_BYTES = 4096;

const SPACE_NAMES = ['mmio', 'pio', 'config'];
const OP_NAMES = ['R', 'W', 'UNKNOWN'];
const BEGIN = Buffer.from('{"type":"access","t":');
const GPA = Buffer.from('","gpa":"0x');
const GPA_NULL = Buffer.from('","gpa":null');
const QUOTE_WIDTH = Buffer.from('","width":');
const WIDTH = Buffer.from(',"width":');
const VALUE = Buffer.from(',"value":"0x');
const CPU = Buffer.from('","cpu":');
const CPU_NULL = Buffer.from('","cpu":null');
const BOTH_NULL = Buffer.from('","cpu":null,"pc":null}\n');
const PC = Buffer.from(',"pc":"0x');
const PC_NULL = Buffer.from(',"pc":null}\n');
const END = Buffer.from('"}\n');

/** Rows of a batch as one JSON object a line, as docs/ndjson.schema.json has it (`access`). */
export class NdjsonRows {
  readonly #writer: TextWriter;
  readonly #places: RegionFragments;
  readonly #addresses: Addresses;

  constructor(writer: TextWriter, tables: Tables) {
    this.#writer = writer;
    this.#addresses = new Addresses(tables);
    this.#places = new RegionFragments(tables, placeOf);
  }

  /** To be told of every event, after the tables. */
  apply(event: RecordingEvent): void {
    this.#addresses.apply(event);
    this.#places.apply(event);
  }

  /** Writes rows `from` and up; returns the row that found no room, or the batch's length. */
  put(batch: AccessBatch, from: number): number {
    const writer = this.#writer;
    let bytes = writer.bytes;
    let at = writer.at;
    let limit = bytes.length - ROW_BYTES;
    for (let row = from; row < batch.length; row++) {
      if (at > limit) {
        writer.at = at;
        if (!writer.hasRoom(ROW_BYTES)) return row;
        bytes = writer.bytes;
        at = writer.at;
        limit = bytes.length - ROW_BYTES;
      }
      at = putBytes(bytes, at, BEGIN);
      at = putDecimal(bytes, at, batch.timeNs[row]!);
      const variant = (batch.space[row]! << 2) | batch.op[row]!;
      at = putBytes(bytes, at, this.#places.get(batch.region[row]!, variant));
      at = putHexNumber(bytes, at, batch.offset[row]!);
      at = this.#putGpa(bytes, at, batch, row);
      at = putDecimal(bytes, at, batch.width[row]!);
      at = putBytes(bytes, at, VALUE);
      at = putHex64(bytes, at, batch.valueLo[row]!, batch.valueHi[row]!);
      at = this.#putCpuAndPc(bytes, at, batch, row);
    }
    writer.at = at;
    return batch.length;
  }

  /** From the offset's closing quote to `"width":`. */
  #putGpa(bytes: Uint8Array, at: number, batch: AccessBatch, row: number): number {
    const gpa = this.#addresses.of(batch.mapId[row]!, batch.region[row]!, batch.offset[row]!);
    if (gpa < 0) return putBytes(bytes, putBytes(bytes, at, GPA_NULL), WIDTH);
    return putBytes(bytes, putHexNumber(bytes, putBytes(bytes, at, GPA), gpa), QUOTE_WIDTH);
  }

  /** From the value's closing quote to the end of the line. */
  #putCpuAndPc(bytes: Uint8Array, start: number, batch: AccessBatch, row: number): number {
    const cpu = batch.cpu[row]!;
    const lo = batch.pcLo[row]!;
    const hi = batch.pcHi[row]!;
    const noPc = lo === 0 && hi === 0;
    if (noPc && cpu === NO_CPU) return putBytes(bytes, start, BOTH_NULL);
    const at =
      cpu === NO_CPU
        ? putBytes(bytes, start, CPU_NULL)
        : putDecimal(bytes, putBytes(bytes, start, CPU), cpu);
    if (noPc) return putBytes(bytes, at, PC_NULL);
    return putBytes(bytes, putHex64(bytes, putBytes(bytes, at, PC), lo, hi), END);
  }
}

/** `variant`: `Space` in bits 2 and 3, `Op` in bits 0 and 1. */
function placeOf(name: RegionName, variant: number): string {
  const place = {
    op: OP_NAMES[variant & 3] ?? OP_NAMES[Op.unknown],
    space: SPACE_NAMES[variant >> 2] ?? SPACE_NAMES[Space.mmio],
    device: name.device ?? null,
    region: name.region,
  };
  return `,${JSON.stringify(place).slice(1, -1)},"offset":"0x`;
}
