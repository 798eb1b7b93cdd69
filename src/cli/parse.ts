/** Values of options. */
import { Option } from '@commander-js/extra-typings';
import { InvalidArgumentError } from 'commander';
import { configPlace } from '../model/config-place.ts';
import { fullPciAddress } from '../host/pci.ts';
import { OUTPUT_FORMATS } from '../sinks/index.ts';
import { TEXT_EXTRAS, type TextExtra } from '../sinks/text-extra.ts';

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

/** Segments have to be released one by one, and the guest is paused before it is reached. */
const MIN_SPOOL_LIMIT = 2 ** 20;
/** What `setTimeout` takes is 2^31 - 1 ms. */
const MAX_SECONDS = 24 * 24 * 3600;

/** `512M`, `2G`, a plain number of bytes. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmg]?)(?:i?b)?$/i.exec(text.trim());
  const unit = UNITS[match?.[2]?.toLowerCase() ?? 'x'];
  if (match === null || unit === undefined) {
    throw new InvalidArgumentError(`${text} is no size: write 512M or 2G.`);
  }
  return Math.floor(Number(match[1]) * unit);
}

/** As `parseSize`, of the spool's limit. */
export function parseSpoolLimit(text: string): number {
  const size = parseSize(text);
  if (size >= MIN_SPOOL_LIMIT) return size;
  throw new InvalidArgumentError(`${text} is too little: the least is 1M.`);
}

/** `12`, `0.5`; a timer takes no more than 24 days. */
export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !Number.isFinite(seconds) || seconds <= 0) {
    throw new InvalidArgumentError(`${text} is no number of seconds.`);
  }
  if (seconds > MAX_SECONDS) {
    throw new InvalidArgumentError(`${text} is too long: the most is ${MAX_SECONDS}, 24 days.`);
  }
  return seconds;
}

/** `0`, `25` */
export function parseCount(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError(`${text} is no number.`);
  return Number(text);
}

/** `config+0x3c`: its offset. */
export function parseConfigPlace(text: string): number {
  const offset = configPlace(text);
  if (offset !== undefined) return offset;
  throw new InvalidArgumentError(
    `${text} is no place in configuration space, such as config+0x3c.`,
  );
}

/** `8080`; 0 is any that is free. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  if (!(port <= 65535)) throw new InvalidArgumentError(`${text} is no port, such as 8080.`);
  return port;
}

/** Gathers an option that may be given several times. A name that is empty fits too much. */
export function gather(value: string, before: readonly string[] | undefined): string[] {
  if (value.trim() === '') throw new InvalidArgumentError('it is empty.');
  return [...(before ?? []), value];
}

/** Gathers addresses of PCI functions, in full. */
export function gatherPciAddress(text: string, before: readonly string[] | undefined): string[] {
  const address = fullPciAddress(text);
  if (address === undefined) {
    throw new InvalidArgumentError(`${text} is no PCI address: write 0000:01:00.0 or 01:00.0.`);
  }
  return [...(before ?? []), address];
}

/** `--text-extra config,rom` */
export function textExtraOption() {
  return new Option(
    '--text-extra <kinds>',
    `accesses that mmiotrace text has no line for, as MARKs: ${TEXT_EXTRAS.join(', ')}, or both with a comma (a capture has them always)`,
  ).argParser((text): TextExtra[] => {
    const words = text.split(',');
    const wrong = words.find((word) => !TEXT_EXTRAS.some((known) => known === word));
    if (wrong === undefined) return words as TextExtra[];
    throw new InvalidArgumentError(`${wrong} is neither ${TEXT_EXTRAS.join(' nor ')}.`);
  });
}

/** `--format ndjson` */
export function formatOption() {
  return new Option('--format <format>', 'of outputs whose suffix names none').choices(
    OUTPUT_FORMATS,
  );
}
