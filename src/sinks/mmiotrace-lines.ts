import { hex, hex4 } from '../base/format.ts';
import type { CoverageStatement } from '../model/coverage.ts';
import type { Bar, Device } from '../model/device.ts';
import type { EndEvent, LossEvent, RecordingHeader } from '../model/events.ts';

/** A line, its LF included, has at most this many bytes: some readers' buffers hold 1024. */
export const MAX_LINE_BYTES = 1000;
/** What follows `MARK ` in every MARK that the user did not write. */
const OURS = 'mmiobridge: ';
const MAX_DRIVER = 200;

/**
 * `PCIDEV` without LF, as mmio_print_pcidev of Linux kernel/trace/trace_mmiotrace.c prints it: no
 * 0x, and a single trailing space where no driver is known.
 */
export function pcidevLine(device: Device): string {
  const head = [
    digits(device.bus).padStart(2, '0') + digits(device.devfn).padStart(2, '0'),
    hex4(device.vendorId) + hex4(device.deviceId),
    digits(device.irq),
  ];
  const starts = device.bars.map(startAndFlags);
  const sizes = device.bars.map((bar) => digits(bar.sizeBytes));
  const driver = asciiOnly(device.driver).trim().slice(0, MAX_DRIVER);
  return ['PCIDEV', ...head, ...starts, ...sizes, driver].join(' ');
}

/** Start OR-ed with the flag bits; both may have bits in the lowest four. */
function startAndFlags(bar: Bar): string {
  const low = bar.start % 16;
  return digits(bar.start - low + (low | (bar.flags & 15)));
}

function digits(value: number): string {
  return value.toString(16);
}

/** Printable ASCII; each other character (code point) becomes one `?`. */
export function asciiOnly(text: string): string {
  return text.replace(/[^\x20-\x7e]/gu, '?');
}

/** For what we write ourselves: words parted by one space, none at the ends. */
export function singleSpaced(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}

/** A name as one field of a MARK. */
export function asField(name: string): string {
  return asciiOnly(name).replaceAll(' ', '_') || '?';
}

/**
 * A text cut to pieces of at most `max` characters: behind a word where there is one, or, `exact`,
 * just there, so that no character is dropped.
 */
export function pieces(text: string, max: number, exact: boolean): string[] {
  const cut: string[] = [];
  let rest = text;
  while (rest.length > max) {
    const space = exact ? -1 : rest.lastIndexOf(' ', max);
    const end = space > max / 2 ? space : max;
    cut.push(rest.slice(0, end));
    rest = exact ? rest.slice(end) : rest.slice(end).trimStart();
  }
  if (rest !== '' || cut.length === 0) cut.push(rest);
  return cut;
}

/**
 * The kernel's words where it was the kernel (mmio_read of kernel/trace/trace_mmiotrace.c);
 * otherwise also for how long nothing was seen, and why.
 */
export function lossText(event: LossEvent): string {
  const count = event.count < 0 ? 'an unknown number of' : String(event.count);
  if (event.reason === 'kernel' && event.durationNs === 0) return `Lost ${count} events.`;
  const duration =
    event.durationNs > 0 ? ` within ${(event.durationNs / 1e9).toFixed(6)} seconds` : '';
  return `Lost ${count} events${duration}: ${event.reason || 'no reason known'}`;
}

/** People search with `grep -i lost`: nothing but a loss may answer. */
function withoutLossWord(text: string): string {
  return text.replaceAll(/lost/gi, 'missing');
}

/** A user's words, which are not to be taken for ours, or for a loss. */
export function asUsers(text: string): string {
  return /^\s*(?:mmiobridge:|user:|lost\b)/i.test(text) ? `user: ${text}` : text;
}

/** The text of a MARK of ours: `mmiobridge: ` and a word for what it is about. */
export function ours(text: string): string {
  return OURS + withoutLossWord(text);
}

export function headerText(header: RecordingHeader): string {
  const version = header.qemuVersion === '' ? 'unknown' : header.qemuVersion;
  const fields = [
    `source ${header.source}`,
    `clock ${header.clock}`,
    `started ${startedAt(header)}`,
    `QEMU ${version}`,
  ];
  return ours(`session ${header.tool}, ${fields.join(', ')}`);
}

/** ISO 8601 with microseconds, which is what QEMU's own stamps have. */
function startedAt(header: RecordingHeader): string {
  const date = new Date(header.startSec * 1000);
  if (Number.isNaN(date.getTime())) return 'unknown';
  const usec = Math.floor(header.startNs / 1000)
    .toString()
    .padStart(6, '0');
  return `${date.toISOString().slice(0, 19)}.${usec}Z`;
}

/** One text a range, then one a note; at least one. */
export function coverageTexts(statement: CoverageStatement): string[] {
  const head = `coverage ${statement.phase}`;
  const ranges = statement.ranges.map((range) => {
    const place = `${asField(range.device)} ${asField(range.region)}`;
    const bytes = `${hex(range.offset)}+${hex(range.lengthBytes)}`;
    return ours(`${head} ${place} ${bytes} ${range.state}: ${range.why || 'no reason known'}`);
  });
  const notes = statement.notes.map((note) => ours(`${head} note: ${note}`));
  return ranges.length + notes.length > 0 ? [...ranges, ...notes] : [ours(`${head} unknown`)];
}

/** @param leftOut accesses that the text has no line for */
export function endText(event: EndEvent, leftOut: number): string {
  const { counters } = event;
  const fields = [
    event.complete ? 'complete' : 'incomplete',
    `reads ${counters.reads}`,
    `writes ${counters.writes}`,
  ];
  if (leftOut > 0) fields.push(`not shown ${leftOut}`);
  if (counters.damagedLines > 0) fields.push(`damaged lines ${counters.damagedLines}`);
  if (counters.lossEvents === 0) return ours(`end ${fields.join(', ')}`);
  // The one place beside a loss itself where the word is right.
  return `${OURS}end ${fields.join(', ')}, lost at least ${counters.lost}, in ${counters.lossEvents} places`;
}

/** Evidence keeps its bytes, but not as a word that `grep -i lost` finds. */
export function damageText(position: string, reason: string, evidence: string): string {
  const quoted = evidence.replaceAll(
    /l(?=ost)/gi,
    (letter) => `\\x${digits(letter.charCodeAt(0))}`,
  );
  return ours(`damage at ${position}, ${reason}: ${quoted}`);
}
