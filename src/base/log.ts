/**
 * What happens inside, for bug reports: `--log FILE`. Nothing is put together while nobody wants it.
 */

/** Whose doing it is. */
export type LogTopic =
  'qmp' | 'agent' | 'qemu' | 'recording' | 'spool' | 'plugin' | 'bridge' | 'lab';

/** A line is cut here: `query-pci` of a large machine has many times as much. */
const MAX_CHARS = 4000;

let write: ((line: string) => void) | undefined;

/** From now on lines go there, each with its newline; undefined: nowhere. */
export function logTo(writer: ((line: string) => void) | undefined): void {
  write = writer;
}

/** @param message what happened; called only while there is a log */
export function log(topic: LogTopic, message: () => string): void {
  if (write === undefined) return;
  const text = message().replaceAll(/[^\P{Cc}\t]/gu, ' ');
  const more = text.length - MAX_CHARS;
  const cut = more > 0 ? `${text.slice(0, MAX_CHARS)}… (${more} more characters)` : text;
  write(`${new Date().toISOString()} ${topic.padEnd(9)} ${cut}\n`);
}
