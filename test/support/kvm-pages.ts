import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  KVM_EVENTS,
  parseFormats,
  type EventFormat,
  type KvmFormats,
} from '../../src/sources/kvm-tracepoints/formats.ts';
import { FrameKind, frame, numberFrame } from '../../src/sources/kvm-tracepoints/frames.ts';

const golden = (name: string) => fileURLToPath(new URL(`../golden/kvm/${name}`, import.meta.url));

/** What Linux 6.18 says of its tracepoints; the fields that we read lie the same in 6.1. */
export function formatTexts(): Record<string, string> {
  const names = ['header_page', ...KVM_EVENTS];
  return Object.fromEntries(names.map((name) => [name, readFileSync(golden(name), 'latin1')]));
}

export const FORMATS: KvmFormats = parseFormats(formatTexts());

/** A page that Linux 6.18 wrote while the hammer guest ran. */
export const realPage = (): Buffer => readFileSync(golden('page.bin'));

/** A record as a test writes it. */
export type Rec = { readonly t: number; readonly pid?: number } & (
  | { readonly is: 'instruction'; readonly rip: bigint; readonly csbase?: number }
  | {
      readonly is: 'mmio';
      readonly type: 'asked' | 'read' | 'write';
      readonly gpa: number;
      readonly len?: number;
      readonly val?: bigint;
    }
  | {
      readonly is: 'pio';
      readonly write: boolean;
      readonly port: number;
      readonly size?: number;
      readonly count?: number;
      readonly val?: number;
    }
  | { readonly is: 'exit'; readonly reason: number; readonly rip: bigint; readonly info1: bigint }
  | { readonly is: 'discarded' }
  | { readonly is: 'foreign' }
);

const TYPES = { asked: 0, read: 1, write: 2 };

function payload(rec: Rec, formats: KvmFormats): Buffer {
  const bytes = Buffer.alloc(80);
  const put = (format: EventFormat, values: Readonly<Record<string, bigint | number>>) => {
    bytes.writeUInt16LE(format.id, 0);
    for (const [name, value] of Object.entries(values)) {
      const { offset = 0, size } = format.fields[name] ?? {};
      if (size === 8) bytes.writeBigUInt64LE(BigInt(value), offset);
      else bytes.writeUInt32LE(Number(value), offset);
    }
    return bytes.subarray(0, Math.ceil(format.sizeBytes / 4) * 4);
  };
  bytes.writeInt32LE(rec.pid ?? 100, 4);
  switch (rec.is) {
    case 'instruction':
      return put(formats.emulate, { rip: rec.rip, csbase: rec.csbase ?? 0 });
    case 'mmio': {
      const { type, len = 4, gpa, val = 0n } = rec;
      return put(formats.mmio, { type: TYPES[type], len, gpa, val });
    }
    case 'pio': {
      const { write, port, size = 4, count = 1, val = 0 } = rec;
      return put(formats.pio, { rw: write ? 1 : 0, port, size, count, val });
    }
    case 'exit': {
      const { reason, rip, info1 } = rec;
      return put(formats.exit, { exit_reason: reason, guest_rip: rip, info1 });
    }
    case 'discarded':
    case 'foreign':
      bytes.writeUInt16LE(1, 0);
      return bytes.subarray(0, 12);
  }
}

/** A page of a ring buffer as the kernel would have written it. */
export function page(
  recs: readonly Rec[],
  options: {
    readonly lost?: number;
    readonly longForm?: boolean;
    readonly formats?: KvmFormats;
  } = {},
): Buffer {
  const formats = options.formats ?? FORMATS;
  const parts: Buffer[] = [];
  const start = recs[0]?.t ?? 0;
  let last = start;
  for (const rec of recs) {
    const delta = rec.t - last;
    last = rec.t;
    if (delta >= 2 ** 27) {
      const extend = Buffer.alloc(8);
      extend.writeUInt32LE(30 + (delta % 2 ** 27) * 32, 0);
      extend.writeUInt32LE(Math.floor(delta / 2 ** 27), 4);
      parts.push(extend);
    }
    const data = payload(rec, formats);
    const small = delta >= 2 ** 27 ? 0 : delta;
    const head = Buffer.alloc(rec.is === 'discarded' || options.longForm === true ? 8 : 4);
    if (rec.is === 'discarded') {
      // A time of 0 would be the end of the page.
      head.writeUInt32LE(29 + Math.max(1, small) * 32, 0);
      head.writeUInt32LE(data.length + 4, 4);
      last = rec.t + (small === 0 ? 1 : 0);
    } else if (options.longForm === true) {
      head.writeUInt32LE(small * 32, 0);
      head.writeUInt32LE(data.length + 4, 4);
    } else head.writeUInt32LE(data.length / 4 + small * 32, 0);
    parts.push(head, data);
  }
  const body = Buffer.concat(parts);
  const bytes = Buffer.alloc(formats.pageBytes);
  bytes.writeBigUInt64LE(BigInt(start), 0);
  let length = body.length;
  if (options.lost !== undefined) {
    length += 2 ** 31;
    if (options.lost >= 0) {
      length += 2 ** 30;
      bytes.writeUInt32LE(options.lost, formats.dataOffset + body.length);
    }
  }
  bytes.writeUInt32LE(length, 8);
  bytes.set(body, formats.dataOffset);
  return bytes;
}

/** What a record says, in plain words. */
export interface PlainRecord {
  readonly timeNs: bigint;
  readonly thread: number;
  readonly what: string;
}

/**
 * The plain twin of `PageReader`: one word after the other, with BigInt. Undefined at the end: the
 * page is not what it should be.
 */
export function readPlainly(bytes: Buffer, formats = FORMATS): (PlainRecord | undefined)[] {
  const records: (PlainRecord | undefined)[] = [];
  if (bytes.length < formats.dataOffset) return [undefined];
  const word = bytes.readUInt32LE(8);
  const end = formats.dataOffset + (word & 0x07ffffff);
  if (end > bytes.length) return [undefined];
  let timeNs = bytes.readBigUInt64LE(0);
  if (word >= 2 ** 31) {
    const stored = (word & 0x4000_0000) !== 0 && end + 4 <= bytes.length;
    const count = stored ? bytes.readUInt32LE(end) : -1;
    records.push({ timeNs, thread: 0, what: `lost ${count}` });
  }
  const words = bytes.subarray(0, end);
  for (let at = formats.dataOffset; ;) {
    if (at + 4 > end) return at === end ? records : [...records, undefined];
    const head = words.readUInt32LE(at);
    const type = head & 31;
    const delta = BigInt(head >>> 5);
    if (type === 29 && delta === 0n) return records;
    const second = at + 8 <= end ? words.readUInt32LE(at + 4) : undefined;
    if (type >= 29 || type === 0) if (second === undefined) return [...records, undefined];
    if (type === 30) timeNs += (BigInt(second ?? 0) << 27n) + delta;
    if (type === 31) timeNs = (BigInt(second ?? 0) << 27n) + delta;
    if (type >= 30) {
      at += 8;
      continue;
    }
    timeNs += delta;
    const length = type === 0 || type === 29 ? (second ?? 0) : 4 * type;
    if (type === 0 || type === 29) {
      if (length < 4 || length % 4 !== 0) return [...records, undefined];
    }
    const next = at + 4 + length;
    if (next > end) return [...records, undefined];
    const data = words.subarray(type === 0 ? at + 8 : at + 4, next);
    const what = type === 29 ? undefined : plainWords(data, formats);
    if (what !== undefined) records.push({ timeNs, thread: data.readInt32LE(4), what });
    at = next;
  }
}

function plainWords(data: Buffer, formats: KvmFormats): string | undefined {
  if (data.length < 8) return undefined;
  const format = [formats.mmio, formats.emulate, formats.pio, formats.exit].find(
    ({ id }) => id === data.readUInt16LE(0),
  );
  if (format === undefined || data.length < format.sizeBytes) return undefined;
  const of = (name: string): bigint => {
    const { offset = 0, size } = format.fields[name] ?? {};
    return size === 8 ? data.readBigUInt64LE(offset) : BigInt(data.readUInt32LE(offset));
  };
  const least = (a: bigint) => (a < 255n ? a : 255n);
  const hex = (value: bigint) => value.toString(16);
  if (format === formats.mmio) {
    const name = ['asked', 'read', 'write'][Number(of('type'))];
    if (name === undefined) return undefined;
    return `${name} ${least(of('len'))} ${Number(of('gpa'))} ${hex(of('val'))}`;
  }
  if (format === formats.emulate) {
    const low = BigInt.asUintN(32, of('rip') + of('csbase'));
    return `at ${hex(((of('rip') >> 32n) << 32n) | low)}`;
  }
  if (format === formats.pio) {
    const name = of('rw') === 0n ? 'in' : 'out';
    return `${name} ${least(of('size'))} ${of('port')} x${of('count')} ${hex(of('val'))}`;
  }
  const reason = Number(of('exit_reason') & 0xffffn);
  const info = Number(BigInt.asUintN(32, of('info1')));
  if (reason === 30) {
    return `port ${(info & 7) + 1} ${info >>> 16} ${(info & 8) !== 0 ? 'in' : 'out'} ${hex(of('guest_rip'))}`;
  }
  if (reason === 0x7b) {
    return `port ${(info >>> 4) & 7} ${info >>> 16} ${(info & 1) !== 0 ? 'in' : 'out'} ${hex(of('guest_rip'))}`;
  }
  return undefined;
}

/** Pages of one round, by CPU, and when it began: as they lie in the spool. */
export function round(
  pages: readonly (readonly [cpu: number, page: Uint8Array])[],
  beganNs: number,
): Buffer {
  return Buffer.concat([
    ...pages.map(([cpu, bytes]) => frame(FrameKind.page, cpu, bytes)),
    numberFrame(FrameKind.roundEnd, beganNs),
  ]);
}
