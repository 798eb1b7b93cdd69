/**
 * Pages of the kernel's ring buffer, bytes in, records out. The layout is that of
 * include/linux/ring_buffer.h and of libtraceevent's kbuffer-parse.c; little-endian, 64-bit.
 *
 * Head: u64 time of the page, u64 length of its records with two flags. A record: a word of 5 bits
 * of type and 27 bits of time since the one before; then, by type, up to 112 bytes of payload, a
 * length word and a longer payload, padding, or more bits of time.
 */
import { Kind, type KvmEvents } from './events.ts';
import type { EventFormat, KvmFormats } from './formats.ts';

const LENGTH_MASK = 0x07ff_ffff;
/** Of the length's upper bits: records are missing before this page; the page says how many. */
const MISSED_EVENTS = 0x8000_0000;
const MISSED_STORED = 0x4000_0000;

const TYPE_PADDING = 29;
const TYPE_TIME_EXTEND = 30;
const TYPE_TIME_STAMP = 31;
const TIME_EXTEND_NS = 2 ** 27;

const IO_INSTRUCTION_INTEL = 30;
const IO_INSTRUCTION_AMD = 0x7b;

/** Exits of which `kvm_exit` is wanted. Neither number means anything else to the other maker. */
export const PORT_EXITS = `exit_reason == ${IO_INSTRUCTION_INTEL} || exit_reason == ${IO_INSTRUCTION_AMD}`;

/** How much of a page says something; all of it where it is not as it should be. */
export function usedBytes(page: Uint8Array, { dataOffset }: KvmFormats): number {
  if (page.length < dataOffset) return page.length;
  const word = new DataView(page.buffer, page.byteOffset).getUint32(8, true);
  const count = (word & MISSED_STORED) === 0 ? 0 : 8;
  return Math.min(page.length, dataOffset + (word & LENGTH_MASK) + count);
}

export class PageReader {
  readonly #formats: KvmFormats;
  readonly #baseHi: number;
  readonly #baseLo: number;
  /** Records seen, of whatever kind: the kernel counts them, too. */
  records = 0;

  /** @param baseNs a moment of CLOCK_MONOTONIC: times are told from there, and are exact */
  constructor(formats: KvmFormats, baseNs: bigint) {
    this.#formats = formats;
    this.#baseHi = Number(baseNs >> 32n);
    this.#baseLo = Number(baseNs & 0xffff_ffffn);
  }

  /** Appends a page's records. False where the page is not what it should be; then as far as it is. */
  read(page: Uint8Array, into: KvmEvents): boolean {
    const { dataOffset, emulate, mmio, pio, exit } = this.#formats;
    if (page.length < dataOffset) return false;
    const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
    const word = view.getUint32(8, true);
    const end = dataOffset + (word & LENGTH_MASK);
    if (end > page.length) return false;
    let timeNs = this.#sinceBase(view.getUint32(4, true), view.getUint32(0, true));
    if ((word & MISSED_EVENTS) !== 0) {
      const stored = (word & MISSED_STORED) !== 0 && end + 4 <= page.length;
      this.#lost(into, timeNs, stored ? view.getUint32(end, true) : -1);
    }
    let at = dataOffset;
    while (at + 4 <= end) {
      const head = view.getUint32(at, true);
      const type = head & 31;
      const delta = head >>> 5;
      at += 4;
      if (type === TYPE_TIME_EXTEND || type === TYPE_TIME_STAMP) {
        if (at + 4 > end) return false;
        const more = view.getUint32(at, true) * TIME_EXTEND_NS + delta;
        at += 4;
        // A stamp is a whole time, less its upper five bits.
        if (type === TYPE_TIME_EXTEND) timeNs += more;
        else timeNs = more - this.#baseHi * 2 ** 32 - this.#baseLo;
        continue;
      }
      timeNs += delta;
      let length = type * 4;
      if (type === TYPE_PADDING || type === 0) {
        // Padding without a time is the rest of the page.
        if (type === TYPE_PADDING && delta === 0) return true;
        if (at + 4 > end) return false;
        length = view.getUint32(at, true);
        if (length < 4 || length % 4 !== 0) return false;
        if (type === 0) {
          at += 4;
          length -= 4;
        }
      }
      if (at + length > end) return false;
      // A record that was taken back is padding with a time, and the kernel counts it.
      this.records++;
      if (type !== TYPE_PADDING && length >= 8) {
        const id = view.getUint16(at, true);
        if (id === mmio.id) this.#mmio(view, at, length, mmio, into, timeNs);
        else if (id === emulate.id) this.#emulate(view, at, length, emulate, into, timeNs);
        else if (id === pio.id) this.#pio(view, at, length, pio, into, timeNs);
        else if (id === exit.id) this.#exit(view, at, length, exit, into, timeNs);
      }
      at += length;
    }
    return at === end;
  }

  #sinceBase(hi: number, lo: number): number {
    return (hi - this.#baseHi) * 2 ** 32 + (lo - this.#baseLo);
  }

  #lost(into: KvmEvents, timeNs: number, count: number): void {
    const row = into.add();
    into.timeNs[row] = timeNs;
    into.thread[row] = 0;
    into.kind[row] = Kind.lost;
    into.lo[row] = count;
    into.hi[row] = count < 0 ? 0xffff_ffff : 0;
  }

  #mmio(
    view: DataView,
    at: number,
    length: number,
    { fields, sizeBytes }: EventFormat,
    into: KvmEvents,
    timeNs: number,
  ): void {
    if (length < sizeBytes) return;
    const type = view.getUint32(at + fields['type']!.offset, true);
    if (type > 2) return;
    const row = into.add();
    const gpa = at + fields['gpa']!.offset;
    const value = at + fields['val']!.offset;
    into.timeNs[row] = timeNs;
    into.thread[row] = view.getInt32(at + 4, true);
    into.kind[row] = Kind.readAsked + type;
    into.width[row] = Math.min(255, view.getUint32(at + fields['len']!.offset, true));
    into.count[row] = 1;
    into.address[row] = view.getUint32(gpa + 4, true) * 2 ** 32 + view.getUint32(gpa, true);
    into.lo[row] = view.getUint32(value, true);
    into.hi[row] = view.getUint32(value + 4, true);
  }

  #emulate(
    view: DataView,
    at: number,
    length: number,
    { fields, sizeBytes }: EventFormat,
    into: KvmEvents,
    timeNs: number,
  ): void {
    if (length < sizeBytes) return;
    const row = into.add();
    const rip = at + fields['rip']!.offset;
    const base = view.getUint32(at + fields['csbase']!.offset, true);
    into.timeNs[row] = timeNs;
    into.thread[row] = view.getInt32(at + 4, true);
    into.kind[row] = Kind.instruction;
    // In 64-bit code the base is 0; elsewhere addresses have 32 bits.
    into.lo[row] = view.getUint32(rip, true) + base;
    into.hi[row] = view.getUint32(rip + 4, true);
  }

  #pio(
    view: DataView,
    at: number,
    length: number,
    { fields, sizeBytes }: EventFormat,
    into: KvmEvents,
    timeNs: number,
  ): void {
    if (length < sizeBytes) return;
    const write = view.getUint32(at + fields['rw']!.offset, true) !== 0;
    const row = into.add();
    into.timeNs[row] = timeNs;
    into.thread[row] = view.getInt32(at + 4, true);
    into.kind[row] = write ? Kind.portWrite : Kind.portRead;
    into.width[row] = Math.min(255, view.getUint32(at + fields['size']!.offset, true));
    into.count[row] = view.getUint32(at + fields['count']!.offset, true);
    into.address[row] = view.getUint32(at + fields['port']!.offset, true);
    into.lo[row] = view.getUint32(at + fields['val']!.offset, true);
    into.hi[row] = 0;
  }

  /** The exit qualification of IN and OUT: Intel SDM vol. 3C, table 28-5; AMD APM vol. 2, 15.10.2. */
  #exit(
    view: DataView,
    at: number,
    length: number,
    { fields, sizeBytes }: EventFormat,
    into: KvmEvents,
    timeNs: number,
  ): void {
    if (length < sizeBytes) return;
    const reason = view.getUint32(at + fields['exit_reason']!.offset, true) & 0xffff;
    const info = view.getUint32(at + fields['info1']!.offset, true);
    let width: number;
    let isRead: boolean;
    if (reason === IO_INSTRUCTION_INTEL) {
      width = (info & 7) + 1;
      isRead = (info & 8) !== 0;
    } else if (reason === IO_INSTRUCTION_AMD) {
      width = (info >>> 4) & 7;
      isRead = (info & 1) !== 0;
    } else return;
    const rip = at + fields['guest_rip']!.offset;
    const row = into.add();
    into.timeNs[row] = timeNs;
    into.thread[row] = view.getInt32(at + 4, true);
    into.kind[row] = Kind.portInstruction;
    into.width[row] = width;
    into.count[row] = isRead ? 1 : 0;
    into.address[row] = info >>> 16;
    into.lo[row] = view.getUint32(rip, true);
    into.hi[row] = view.getUint32(rip + 4, true);
  }
}
