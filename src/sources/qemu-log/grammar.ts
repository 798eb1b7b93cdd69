/**
 * The grammar of QEMU's trace log, one line at a time and in plain words: the formats are those of
 * QEMU's `hw/vfio/trace-events`, `hw/pci/trace-events` and `system/trace-events`, the prefixes those
 * of its tracetool's log backend. The decoder reads the frequent shapes by itself and comes here
 * for all the others; a test holds the two equal.
 */
import type { RawEvent, RawTarget } from '../raw-events.ts';

export interface ParsedAccess {
  readonly kind: 'access';
  readonly write: boolean;
  readonly target: RawTarget;
  readonly address: number;
  readonly valueLo: number;
  readonly valueHi: number;
  readonly width: number;
  readonly cpu: number;
}

/** A line's time stamp: seconds since 1970 and microseconds; `undefined` where it has none. */
export interface Stamp {
  readonly thread: number;
  readonly sec: number;
  readonly usec: number;
}

type Unstamped<T> = T extends unknown ? Omit<T, 'timeNs'> : never;

export type ParsedLine =
  | ParsedAccess
  | Exclude<Unstamped<RawEvent>, { kind: 'damage' }>
  | { readonly kind: 'other'; readonly name: string }
  | { readonly kind: 'damaged'; readonly reason: string };

/** What lines without an event's name are counted as. */
export const TEXT_LINE = '(text)';

const THREAD_PREFIX = /^(\d{1,9})@(\d{1,10})\.(\d{6}):/;
/** glib leaves the fraction out where it is zero. */
const ISO_PREFIX = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{6}))?Z /;

/** Takes the prefix off a line. `rest` is undefined where a prefix was begun and is not whole. */
export function splitPrefix(line: string): {
  readonly stamp: Stamp | undefined;
  readonly rest: string | undefined;
} {
  const first = line.charCodeAt(0);
  if (!(first >= 0x30 && first <= 0x39)) return { stamp: undefined, rest: line };
  const thread = THREAD_PREFIX.exec(line);
  if (thread !== null) {
    const [prefix, tid, sec, usec] = thread;
    const stamp = { thread: Number(tid), sec: Number(sec), usec: Number(usec) };
    return { stamp, rest: line.slice(prefix.length) };
  }
  const iso = ISO_PREFIX.exec(line);
  if (iso !== null) {
    const [prefix, year, month, day, hour, minute, second, usec] = iso;
    const sec =
      Date.UTC(
        Number(year),
        Number(month) - 1,
        Number(day),
        Number(hour),
        Number(minute),
        Number(second),
      ) / 1000;
    return { stamp: { thread: 0, sec, usec: Number(usec ?? 0) }, rest: line.slice(prefix.length) };
  }
  return { stamp: undefined, rest: undefined };
}

const hex = '0x([0-9a-f]{1,16})';
const device = '\\((.*?)\\)';

const REGION_WRITE = new RegExp(`^ \\((.*):region(\\d{1,3})\\+${hex}, ${hex}, (\\d)\\)$`);
const REGION_READ = new RegExp(`^ \\((.*):region(\\d{1,3})\\+${hex}, (\\d)\\) = ${hex}$`);
const CONFIG_READ = new RegExp(`^ \\((.*), @${hex}, len=0x(\\d)\\) ${hex}$`);
const CONFIG_WRITE = new RegExp(`^ \\((.*), @${hex}, ${hex}, len=0x(\\d)\\)$`);
const ROM_READ = new RegExp(`^ \\((.*), ${hex}, 0x(\\d)\\) = ${hex}$`);
const MEMORY_REGION = new RegExp(
  `^cpu (-?\\d{1,4}) mr ${hex} addr ${hex} value ${hex} size (\\d) name '(.*)'$`,
);
const MAPPING = new RegExp(`^(\\S+) ([0-9a-f]{2}):([0-9a-f]{2})\\.([0-7]) (\\d),${hex}\\+${hex}$`);
const CONFIG_SPACE_WRITE = new RegExp(
  `^(\\S+) ([0-9a-f]{2}):([0-9a-f]{2})\\.([0-7]) @${hex} <- ${hex}$`,
);
const REGION_SETUP = new RegExp(
  `^Device (.*), region (\\d{1,3}) ".*", flags: 0x[0-9a-f]+, offset: 0x[0-9a-f]+, size: ${hex}$`,
);
const MSI = new RegExp(`^ ?${device} vector (\\d{1,5}) `);
const INTX = new RegExp(`^ ?${device} Pin ([A-D])$`);
const MSIX_USE = new RegExp(`^ ?${device} vector (\\d{1,5}) used`);
const IOEVENTFD = /^(.+)\+0x([0-9a-f]{1,16})\[\d+\]:(0x[0-9a-f]{1,16}) vfio:[01]$/;
const RESET = /^ ?\((.*)\)$/;

const isWidth = (width: number) => width === 1 || width === 2 || width === 4 || width === 8;

function access(
  write: boolean,
  target: RawTarget,
  address: string,
  value: string,
  widthText: string,
  cpu = -1,
): ParsedLine {
  const width = Number(widthText);
  if (!isWidth(width)) return { kind: 'damaged', reason: `an access of ${widthText} bytes` };
  const at = parseInt(address, 16);
  if (!Number.isSafeInteger(at)) return { kind: 'damaged', reason: 'an address over 2^53' };
  const digits = value.padStart(16, '0');
  const high = parseInt(digits.slice(0, 8), 16);
  const low = parseInt(digits.slice(8), 16);
  return {
    kind: 'access',
    write,
    target,
    address: at,
    // A model may hand back a sign-extended value: masked to what the guest's instruction took.
    valueLo: width >= 4 ? low : (low & ((1 << (8 * width)) - 1)) >>> 0,
    valueHi: width === 8 ? high : 0,
    width,
    cpu,
  };
}

function size(text: string): number | undefined {
  const value = parseInt(text, 16);
  return Number.isSafeInteger(value) ? value : undefined;
}

const MALFORMED: ParsedLine = { kind: 'damaged', reason: 'not what this event prints' };

type EventParser = (body: string) => ParsedLine;

function matching(pattern: RegExp, build: (groups: readonly string[]) => ParsedLine): EventParser {
  return (body) => {
    const match = pattern.exec(body);
    return match === null ? MALFORMED : build(match.slice(1).map((group) => group ?? ''));
  };
}

const regionWrite = matching(REGION_WRITE, ([name = '', region, offset = '', value = '', w = '']) =>
  access(true, { kind: 'vfio-region', device: name, region: Number(region) }, offset, value, w),
);
const regionRead = matching(REGION_READ, ([name = '', region, offset = '', w = '', value = '']) =>
  access(false, { kind: 'vfio-region', device: name, region: Number(region) }, offset, value, w),
);
const memoryRegion = (write: boolean) =>
  matching(MEMORY_REGION, ([cpu, pointer = '', address = '', value = '', width = '', name = '']) =>
    access(write, { kind: 'memory-region', pointer, name }, address, value, width, Number(cpu) + 0),
  );
const mapping = (added: boolean) =>
  matching(MAPPING, ([type = '', bus = '', slot = '', fn, bar, gpaText = '', sizeText = '']) => {
    const gpa = size(gpaText);
    const sizeBytes = size(sizeText);
    if (gpa === undefined || sizeBytes === undefined || Number(bar) > 6) return MALFORMED;
    const devfn = (parseInt(slot, 16) << 3) | Number(fn);
    if (devfn > 255) return MALFORMED;
    return {
      kind: 'mapping',
      added,
      type,
      bus: parseInt(bus, 16),
      devfn,
      bar: Number(bar),
      gpa,
      sizeBytes,
    };
  });

const EVENTS = new Map<string, EventParser>([
  ['vfio_region_write', regionWrite],
  ['vfio_region_read', regionRead],
  ['memory_region_ops_write', memoryRegion(true)],
  ['memory_region_ops_read', memoryRegion(false)],
  [
    'vfio_pci_read_config',
    matching(CONFIG_READ, ([name = '', at = '', width = '', value = '']) =>
      access(false, { kind: 'vfio-config', device: name }, at, value, width),
    ),
  ],
  [
    'vfio_pci_write_config',
    matching(CONFIG_WRITE, ([name = '', at = '', value = '', width = '']) =>
      access(true, { kind: 'vfio-config', device: name }, at, value, width),
    ),
  ],
  [
    'vfio_rom_read',
    matching(ROM_READ, ([name = '', at = '', width = '', value = '']) =>
      access(false, { kind: 'vfio-rom', device: name }, at, value, width),
    ),
  ],
  [
    'pci_cfg_write',
    matching(CONFIG_SPACE_WRITE, ([type = '', bus = '', slot = '', fn, at = '', value = '']) => {
      const devfn = (parseInt(slot, 16) << 3) | Number(fn);
      if (devfn > 255) return MALFORMED;
      return {
        kind: 'config-write',
        type,
        bus: parseInt(bus, 16),
        devfn,
        offset: parseInt(at, 16),
        value: parseInt(value, 16),
      };
    }),
  ],
  ['pci_update_mappings_add', mapping(true)],
  ['pci_update_mappings_del', mapping(false)],
  [
    'vfio_region_setup',
    matching(REGION_SETUP, ([name = '', region, sizeText = '']) => {
      const sizeBytes = size(sizeText);
      if (sizeBytes === undefined) return MALFORMED;
      return { kind: 'region-setup', device: name, region: Number(region), sizeBytes };
    }),
  ],
  [
    'vfio_msi_interrupt',
    matching(MSI, ([name = '', vector]) => ({
      kind: 'interrupt',
      device: name,
      type: 'msi',
      vector: Number(vector),
    })),
  ],
  [
    'vfio_intx_interrupt',
    matching(INTX, ([name = '', pin = 'A']) => ({
      kind: 'interrupt',
      device: name,
      type: 'intx',
      vector: pin.charCodeAt(0) - 0x41,
    })),
  ],
  [
    'vfio_msix_vector_do_use',
    matching(MSIX_USE, ([name = '']) => ({ kind: 'msix-use', device: name })),
  ],
  [
    'vfio_ioeventfd_init',
    matching(IOEVENTFD, ([region = '', at = '', value = '']) => ({
      kind: 'ioeventfd',
      region,
      offset: parseInt(at, 16),
      value,
    })),
  ],
  ['vfio_pci_reset', matching(RESET, ([name = '']) => ({ kind: 'reset', device: name }))],
]);

/** What a read of the device gives the guest that QEMU could not make. */
const ALL_ONES = 'ffffffffffffffff';
/**
 * Numbers of the errors that VFIO gives: a read of the configuration space that fails gives the
 * guest its negative (vfio_pci_read_config of hw/vfio/pci.c).
 */
const ERRNO: Readonly<Record<string, number>> = {
  'Operation not permitted': 1,
  'No such file or directory': 2,
  'Input/output error': 5,
  'Bad address': 14,
  'Device or resource busy': 16,
  'No such device': 19,
  'Invalid argument': 22,
};

const FAILED = ') failed: ';
/** hw/vfio/region.c and hw/vfio/pci.c, on standard error; the program's name may stand before it. */
const FAILED_WRITE = new RegExp(
  `(?:^|[: ])vfio_region_write\\((.*):region(\\d{1,3})\\+${hex}, ?${hex}, ?(\\d)\\) failed: (.*)$`,
);
const FAILED_READ = new RegExp(
  `(?:^|[: ])vfio_region_read\\((.*):region(\\d{1,3})\\+${hex}, ?(\\d)\\) failed: (.*)$`,
);
const FAILED_CONFIG_WRITE = new RegExp(
  `(?:^|[: ])vfio_pci_write_config\\((.*), ${hex}, ${hex}, 0x(\\d)\\) failed: (.*)$`,
);
const FAILED_CONFIG_READ = new RegExp(
  `(?:^|[: ])vfio_pci_read_config\\((.*), ${hex}, 0x(\\d)\\) failed: (.*)$`,
);

/** Whether a line may tell of an access that failed. */
export function mayTellFailure(line: string): boolean {
  return line.includes(FAILED);
}

function parseFailure(body: string): ParsedLine | undefined {
  let match = FAILED_WRITE.exec(body);
  if (match !== null) {
    const [, name = '', region, offset = '', value = '', width = '', reason = ''] = match;
    const target = { kind: 'vfio-region', device: name, region: Number(region) } as const;
    return failed(access(true, target, offset, value, width), reason);
  }
  match = FAILED_READ.exec(body);
  if (match !== null) {
    const [, name = '', region, offset = '', width = '', reason = ''] = match;
    const target = { kind: 'vfio-region', device: name, region: Number(region) } as const;
    return failed(access(false, target, offset, ALL_ONES, width), reason);
  }
  match = FAILED_CONFIG_WRITE.exec(body);
  if (match !== null) {
    const [, name = '', offset = '', value = '', width = '', reason = ''] = match;
    return failed(
      access(true, { kind: 'vfio-config', device: name }, offset, value, width),
      reason,
    );
  }
  match = FAILED_CONFIG_READ.exec(body);
  if (match === null) return undefined;
  const [, name = '', offset = '', width = '', reason = ''] = match;
  const errno = ERRNO[reason];
  if (errno === undefined) {
    return { kind: 'damaged', reason: 'a failed read of which it is not known what the guest saw' };
  }
  const value = (0x1_0000_0000 - errno).toString(16);
  return failed(access(false, { kind: 'vfio-config', device: name }, offset, value, width), reason);
}

function failed(line: ParsedLine, reason: string): ParsedLine {
  if (line.kind !== 'access') return line;
  const { write, target, address, width, valueLo, valueHi } = line;
  return { kind: 'failed', write, target, address, width, valueLo, valueHi, reason };
}

// A name with an underscore: no word of QEMU's messages or of `-d` output looks like that.
const EVENT_NAME = /^([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?: |$)/i;
const NOT_TEXT = /[^\t\x20-\x7e\x80-\xff]/;

/** Reads what follows the prefix, without the newline; one character a byte (latin1). */
export function parseBody(body: string): ParsedLine {
  // Nor is a name, of a device or a region, that has such.
  if (NOT_TEXT.test(body)) return { kind: 'damaged', reason: 'bytes that are no text' };
  const name = EVENT_NAME.exec(body)?.[1];
  const parse = name === undefined ? undefined : EVENTS.get(name);
  if (name !== undefined && parse !== undefined) return parse(body.slice(name.length + 1));
  const failure = mayTellFailure(body) ? parseFailure(body) : undefined;
  if (failure !== undefined) return failure;
  return { kind: 'other', name: name ?? TEXT_LINE };
}
