import { type AccessBatch, Op, Space } from '../model/access-batch.ts';
import type { RecordingEvent } from '../model/events.ts';
import type { Region } from '../model/device.ts';
import type { Tables } from '../model/tables.ts';
import { Addresses } from './addresses.ts';
import { asField } from './mmiotrace-lines.ts';
import type { TextExtra } from './text-extra.ts';
import { RegionFragments } from './region-fragments.ts';
import { putAscii, putBytes, putDecimal } from './text-digits.ts';
import { putHex64, putHexFixed, putHexNumber } from './text-digits.ts';
import type { TextTime } from './text-time.ts';
import type { TextWriter } from './text-writer.ts';

/** More than the longest line of an access takes. */
const ROW_BYTES = 1000;

const SPACE = 0x20;
const ZERO = 0x30;
const COMMA = 0x2c;
const LF = 0x0a;
const LETTER_X = 0x78;
const LETTER_R = 0x52;
const LETTER_W = 0x57;

/** Where an access went, if its space is not mmio. */
const SPACE_NAMES = ['mmio', 'pio', 'config'];

/**
 * Rows of a batch as `R`, `W` and `UNKNOWN` lines; port and configuration accesses, for which
 * mmiotrace has no line, as MARKs.
 */
export class MmiotraceRows {
  readonly #writer: TextWriter;
  readonly #time: TextTime;
  readonly #textExtra: readonly TextExtra[];
  /** `Region.id` of option ROMs, of which there are MARKs at most. */
  readonly #roms: Set<number>;
  readonly #setsRomsApart: boolean;
  readonly #places: RegionFragments;
  readonly #addresses: Addresses;
  /** Accesses that there was no line for. */
  leftOut = 0;

  /** @param textExtra undefined: the kernel wrote the recording, and an option ROM is as any region */
  constructor(
    writer: TextWriter,
    tables: Tables,
    time: TextTime,
    textExtra: readonly TextExtra[] | undefined,
  ) {
    this.#writer = writer;
    this.#time = time;
    this.#textExtra = textExtra ?? [];
    this.#setsRomsApart = textExtra !== undefined;
    this.#roms = new Set();
    for (const region of tables.regions) if (region !== undefined) this.#learn(region);
    this.#addresses = new Addresses(tables);
    this.#places = new RegionFragments(
      tables,
      (name) => ` ${asField(name.device ?? '')} ${asField(name.region)}+0x`,
    );
  }

  /** To be told of every event, after the tables. */
  apply(event: RecordingEvent): void {
    if (event.kind === 'region') this.#learn(event.region);
    this.#addresses.apply(event);
    this.#places.apply(event);
  }

  #learn(region: Region): void {
    if (this.#setsRomsApart && region.kind === 'rom') this.#roms.add(region.id);
  }

  /** Writes rows `from` and up; returns the row that found no room, or the batch's length. */
  put(batch: AccessBatch, from: number): number {
    const writer = this.#writer;
    const time = this.#time;
    const addresses = this.#addresses;
    const roms = this.#roms.size === 0 ? undefined : this.#roms;
    // PERF: columns as locals: the writes into `bytes` would have each looked up again.
    const { length, op, space, width, timeNs, mapId, region, offset } = batch;
    const { valueLo, valueHi, pcLo, pcHi } = batch;
    let bytes = writer.bytes;
    let at = writer.at;
    let limit = bytes.length - ROW_BYTES;
    for (let row = from; row < length; row++) {
      if (at > limit) {
        writer.at = at;
        if (!writer.hasRoom(ROW_BYTES)) return row;
        bytes = writer.bytes;
        at = writer.at;
        limit = bytes.length - ROW_BYTES;
      }
      if (space[row] !== Space.mmio || roms?.has(region[row]!) === true) {
        at = this.#putMark(bytes, at, batch, row);
        continue;
      }
      if (op[row] === Op.unknown) {
        at = this.#putUnknown(bytes, at, batch, row);
        continue;
      }
      bytes[at] = op[row] === Op.read ? LETTER_R : LETTER_W;
      bytes[at + 1] = SPACE;
      at = putDecimal(bytes, at + 2, width[row]!);
      bytes[at] = SPACE;
      at = time.put(bytes, at + 1, timeNs[row]!);
      const mapped = addresses.of(mapId[row]!, region[row]!, offset[row]!);
      at = putPlace(bytes, at, mapId[row]!, mapped < 0 ? offset[row]! : mapped);
      bytes[at] = SPACE;
      bytes[at + 1] = ZERO;
      bytes[at + 2] = LETTER_X;
      at = putHex64(bytes, at + 3, valueLo[row]!, valueHi[row]!);
      at = putPcAndPid(bytes, at, pcLo[row]!, pcHi[row]!);
    }
    writer.at = at;
    return length;
  }

  #putUnknown(bytes: Uint8Array, start: number, batch: AccessBatch, row: number): number {
    const opcode = batch.valueLo[row]!;
    let at = this.#time.put(bytes, putAscii(bytes, start, 'UNKNOWN '), batch.timeNs[row]!);
    const offset = batch.offset[row]!;
    const mapped = this.#addresses.of(batch.mapId[row]!, batch.region[row]!, offset);
    at = putPlace(bytes, at, batch.mapId[row]!, mapped < 0 ? offset : mapped);
    bytes[at] = SPACE;
    at = putHexFixed(bytes, at + 1, opcode >>> 16, 2);
    bytes[at] = COMMA;
    at = putHexFixed(bytes, at + 1, opcode >>> 8, 2);
    bytes[at] = COMMA;
    at = putHexFixed(bytes, at + 1, opcode, 2);
    return putPcAndPid(bytes, at, batch.pcLo[row]!, batch.pcHi[row]!);
  }

  /** `MARK t mmiobridge: pio W 4 nic0 BAR1+0x10 0xc010 0x1`; `-` where no address is known. */
  #putMark(bytes: Uint8Array, start: number, batch: AccessBatch, row: number): number {
    const space = batch.space[row]!;
    const isRom = space === Space.mmio;
    const isShown = isRom
      ? this.#textExtra.includes('rom')
      : space !== Space.config || this.#textExtra.includes('config');
    if (!isShown) {
      this.leftOut++;
      return start;
    }
    const op = batch.op[row] === Op.read ? 'R' : 'W';
    let at = this.#time.put(bytes, putAscii(bytes, start, 'MARK '), batch.timeNs[row]!);
    at = putAscii(
      bytes,
      at,
      ` mmiobridge: ${isRom ? 'rom' : (SPACE_NAMES[space] ?? 'space')} ${op} `,
    );
    at = putDecimal(bytes, at, batch.width[row]!);
    at = putBytes(bytes, at, this.#places.get(batch.region[row]!, space));
    at = putHexNumber(bytes, at, batch.offset[row]!);
    at = this.#putPort(bytes, at, batch, row);
    at = putAscii(bytes, at, ' 0x');
    at = putHex64(bytes, at, batch.valueLo[row]!, batch.valueHi[row]!);
    bytes[at] = LF;
    return at + 1;
  }

  #putPort(bytes: Uint8Array, at: number, batch: AccessBatch, row: number): number {
    const port = this.#addresses.of(batch.mapId[row]!, batch.region[row]!, batch.offset[row]!);
    if (port < 0) return putAscii(bytes, at, ' -');
    return putHexNumber(bytes, putAscii(bytes, at, ' 0x'), port);
  }
}

/** ` mapid 0xphys`; where no address is known, the offset stands for it. */
function putPlace(bytes: Uint8Array, at: number, mapId: number, address: number): number {
  bytes[at] = SPACE;
  // The kernel prints it as a signed number, and -1 where it knows none.
  const after = putDecimal(bytes, at + 1, mapId | 0);
  bytes[after] = SPACE;
  bytes[after + 1] = ZERO;
  bytes[after + 2] = LETTER_X;
  return putHexNumber(bytes, after + 3, address);
}

/** ` 0xpc 0` and LF */
function putPcAndPid(bytes: Uint8Array, at: number, pcLo: number, pcHi: number): number {
  bytes[at] = SPACE;
  bytes[at + 1] = ZERO;
  bytes[at + 2] = LETTER_X;
  let after = at + 4;
  // PERF: few sources know the PC.
  if ((pcLo | pcHi) === 0) bytes[at + 3] = ZERO;
  else after = putHex64(bytes, at + 3, pcLo, pcHi);
  bytes[after] = SPACE;
  bytes[after + 1] = ZERO;
  bytes[after + 2] = LF;
  return after + 3;
}
