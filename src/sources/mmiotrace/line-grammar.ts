/*
 * The lines of mmiotrace text, version 20070824, one at a time, as Linux
 * kernel/trace/trace_mmiotrace.c prints them. For the accesses, which are nearly all lines of a
 * log, there is access-lines.ts; this says what is wrong with one that it does not take.
 */

export type Line =
  | { readonly kind: 'version' }
  | { readonly kind: 'pcidev'; readonly function: PciFunction }
  | ({ readonly kind: 'map'; readonly phys: number; readonly virt: string } & MapFields)
  | ({ readonly kind: 'unmap' } & TimeFields & { readonly mapId: number })
  | ({ readonly kind: 'access' } & TimeFields)
  | ({ readonly kind: 'unknown'; readonly phys: number; readonly opcode: number } & UnknownFields)
  | ({ readonly kind: 'mark'; readonly text: string } & TimeFields)
  | ({ readonly kind: 'loss'; readonly count: number } & TimeFields)
  /** Means nothing to us, and does no harm. */
  | { readonly kind: 'other' }
  | { readonly kind: 'fault'; readonly reason: string };

/** Seconds of the kernel's clock, and microseconds within the second. */
export interface TimeFields {
  readonly sec: number;
  readonly usec: number;
}
interface MapFields extends TimeFields {
  /** As 32 unsigned bits: the kernel's -1 (an ioremap that it does not know) is 0xffffffff. */
  readonly mapId: number;
  readonly lengthBytes: number;
}
interface UnknownFields extends TimeFields {
  readonly mapId: number;
  readonly pc: bigint;
}

/** The fields of a `PCIDEV` line. */
export interface PciFunction {
  readonly bus: number;
  readonly devfn: number;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly irq: number;
  /** 7: BAR 0 to 5 and the ROM; start and flag bits in one number, as printed. */
  readonly starts: readonly number[];
  readonly sizes: readonly number[];
  readonly driver: string;
}

const TIME = String.raw`(\d{1,10})\.(\d{6})`;
const HEX = '0x([0-9a-fA-F]{1,16})';
const ID = String.raw`(-?\d{1,10})`;
const END = String.raw`[ \r]*$`;

const ACCESS = new RegExp(`^[RW] ([1248]) ${TIME} ${ID} ${HEX} ${HEX} ${HEX} ${ID}${END}`);
const UNKNOWN_BYTES = '([0-9a-fA-F]{2}),([0-9a-fA-F]{2}),([0-9a-fA-F]{2})';
const UNKNOWN = new RegExp(`^UNKNOWN ${TIME} ${ID} ${HEX} ${UNKNOWN_BYTES} ${HEX} ${ID}${END}`);
const MAP = new RegExp(`^MAP ${TIME} ${ID} ${HEX} ${HEX} ${HEX} ${HEX} ${ID}${END}`);
const UNMAP = new RegExp(`^UNMAP ${TIME} ${ID} ${HEX} ${ID}${END}`);
const MARK = new RegExp(`^MARK ${TIME}(?: (.*?))?\r*$`, 's');
const LOSS = /^Lost (0|[1-9]\d{0,15}) events\.$/;
const PCIDEV =
  /^PCIDEV ([0-9a-f]{2})([0-9a-f]{2}) ([0-9a-f]{4})([0-9a-f]{4}) ([0-9a-f]{1,8})((?: [0-9a-f]{1,16}){14})(?: (.*?))?[ \r]*$/i;
const VERSION = new RegExp(`^VERSION (\\S+)${END}`);
/** `LSPCI`, and what a driver or a tool printed in between. */
const HARMLESS = /^[\x20-\x7e\t]*[\r]*$/;

const MAX_SECONDS = 0xffffffff;

/** `text`: one line without its LF, UTF-8 decoded. */
export function parseLine(text: string): Line {
  const word = /^[A-Z]+(?=[ \r]|$)/.exec(text)?.[0] ?? '';
  switch (word) {
    case 'R':
    case 'W':
      return accessLine(text);
    case 'UNKNOWN':
      return unknownLine(text);
    case 'MAP':
      return mapLine(text);
    case 'UNMAP':
      return unmapLine(text);
    case 'MARK':
      return markLine(text);
    case 'PCIDEV':
      return pcidevLine(text);
    case 'VERSION':
      return versionLine(text);
    default:
      return HARMLESS.test(text) ? { kind: 'other' } : fault('not text');
  }
}

function accessLine(text: string): Line {
  const [, width = '', sec = '', usec = '', id = '', phys = '', value = ''] =
    ACCESS.exec(text) ?? [];
  if (width === '') return fault('malformed R or W line');
  if (BigInt(`0x${value}`) >> BigInt(Number(width) * 8) !== 0n) {
    return fault(`value does not fit into ${width} bytes`);
  }
  return faultOf(sec, id, phys) ?? { kind: 'access', ...timeOf(sec, usec) };
}

function unknownLine(text: string): Line {
  const [, sec = '', usec = '', id = '', phys = '', b2 = '', b1 = '', b0 = '', pc = ''] =
    UNKNOWN.exec(text) ?? [];
  if (sec === '') return fault('malformed UNKNOWN line');
  const opcode = Number.parseInt(b2 + b1 + b0, 16);
  const fields = { mapId: Number(id) >>> 0, phys: hex(phys), opcode, pc: BigInt(`0x${pc}`) };
  return faultOf(sec, id, phys) ?? { kind: 'unknown', ...timeOf(sec, usec), ...fields };
}

function mapLine(text: string): Line {
  const [, sec = '', usec = '', id = '', phys = '', virt = '', length = ''] = MAP.exec(text) ?? [];
  if (sec === '') return fault('malformed MAP line');
  if (tooLarge(length)) return fault('length is beyond 2^53');
  // Zero is "no mapping" to us, and the kernel counts from one.
  if (Number(id) === 0) return faultOf(sec, id, phys) ?? { kind: 'other' };
  const virtual = `0x${BigInt(`0x${virt}`).toString(16)}`;
  const fields = { mapId: Number(id) >>> 0, phys: hex(phys), lengthBytes: hex(length) };
  return faultOf(sec, id, phys) ?? { kind: 'map', ...timeOf(sec, usec), ...fields, virt: virtual };
}

function unmapLine(text: string): Line {
  const [, sec = '', usec = '', id = ''] = UNMAP.exec(text) ?? [];
  if (sec === '') return fault('malformed UNMAP line');
  return faultOf(sec, id, '0') ?? { kind: 'unmap', ...timeOf(sec, usec), mapId: Number(id) >>> 0 };
}

function markLine(text: string): Line {
  const [, sec = '', usec = '', said = ''] = MARK.exec(text) ?? [];
  if (sec === '') return fault('malformed MARK line');
  const bad = faultOf(sec, '0', '0');
  if (bad !== undefined) return bad;
  const count = Number(LOSS.exec(said)?.[1] ?? Number.NaN);
  return Number.isSafeInteger(count)
    ? { kind: 'loss', ...timeOf(sec, usec), count }
    : { kind: 'mark', ...timeOf(sec, usec), text: said };
}

function pcidevLine(text: string): Line {
  const fields = PCIDEV.exec(text);
  const [, bus = '', devfn = '', vendor = '', device = '', irq = '', numbers = '', driver = ''] =
    fields ?? [];
  if (fields === null) return fault('malformed PCIDEV line');
  const slots = numbers.trim().split(' ');
  if (slots.some(tooLarge)) return fault('address is beyond 2^53');
  return {
    kind: 'pcidev',
    function: {
      bus: hex(bus),
      devfn: hex(devfn),
      vendorId: hex(vendor),
      deviceId: hex(device),
      irq: hex(irq),
      starts: slots.slice(0, 7).map(hex),
      sizes: slots.slice(7).map(hex),
      driver,
    },
  };
}

function versionLine(text: string): Line {
  const version = VERSION.exec(text)?.[1];
  if (version === '20070824') return { kind: 'version' };
  return fault('version is not 20070824');
}

/** What the fields that all timed lines have may not be. */
function faultOf(sec: string, id: string, phys: string): Line | undefined {
  if (Number(sec) > MAX_SECONDS) return fault('time is beyond 32 bits of seconds');
  if (Number(id) !== (Number(id) | 0)) return fault('mapid is beyond 32 bits');
  return tooLarge(phys) ? fault('physical address is beyond 2^53') : undefined;
}

function fault(reason: string): Line {
  return { kind: 'fault', reason };
}

function timeOf(sec: string, usec: string): TimeFields {
  return { sec: Number(sec), usec: Number(usec) };
}

function hex(digits: string): number {
  return Number.parseInt(digits, 16);
}

function tooLarge(digits: string): boolean {
  return BigInt(`0x${digits}`) > BigInt(Number.MAX_SAFE_INTEGER);
}
