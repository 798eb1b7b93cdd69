/** The one place that prints. Standard output is for logs and answers, standard error for people. */
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';

/** What the process ends with; see docs/recording.md. */
export const EXIT = { complete: 0, failure: 1, usage: 2, incomplete: 3, interrupted: 130 } as const;

let statusShown = false;

/** A line for people; the status line, if there is one, moves down. */
export function say(line: string): void {
  clearStatus();
  process.stderr.write(`${harmless(line)}\n`);
}

/** Words of a guest, or of another host, do not command the terminal. */
export function harmless(text: string): string {
  return text.replaceAll(
    /[^\P{Cc}\n\t]/gu,
    (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** An answer on standard output. */
export function answer(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

/** Whether standard error is a terminal on which a line can be drawn over. */
export function hasStatusLine(): boolean {
  return process.stderr.isTTY && process.env['TERM'] !== 'dumb';
}

/** Draws the status line over the last one. */
export function showStatus(line: string): void {
  const width = (process.stderr.columns ?? 80) - 1;
  process.stderr.write(`\r\x1b[K${harmless(line).slice(0, width)}`);
  statusShown = true;
}

export function clearStatus(): void {
  if (statusShown) process.stderr.write('\r\x1b[K');
  statusShown = false;
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'make room in that file system',
  EDQUOT: 'make room: your quota there is used up',
  EACCES: 'you may not: look at its owner and mode, or run as root',
  EPERM: 'you may not: look at its owner and mode, or run as root',
  EROFS: 'it lies in a file system that is read-only',
  EISDIR: 'it is a folder: name a file',
  ENOTDIR: 'a part of its path is no folder',
  EMFILE: 'raise the limit of open files: ulimit -n',
};

/** What failed, the evidence, a hint; the exit status that goes with it. */
export function sayError(error: unknown, debug: boolean): number {
  if (error instanceof MmioError) {
    say(`mmiobridge: ${error.message}`);
    if (error.evidence !== undefined && error.evidence !== '') {
      say(`  ${error.evidence.replaceAll('\n', '\n  ')}`);
    }
    if (error.hint !== undefined) say(`  hint: ${error.hint}`);
    if (debug) say(error.stack ?? '');
    return error.code === 'usage' ? EXIT.usage : EXIT.failure;
  }
  const code = systemCodeOf(error);
  if (code !== undefined) {
    // The system's refusal, which nobody has put into words: still no defect.
    say(`mmiobridge: ${messageOf(error)}`);
    if (HINTS[code] !== undefined) say(`  hint: ${HINTS[code]}`);
    if (debug && error instanceof Error) say(error.stack ?? '');
    return EXIT.failure;
  }
  say(`mmiobridge: ${messageOf(error)}`);
  say('  this is a defect of mmiobridge itself');
  if (debug && error instanceof Error) say(error.stack ?? '');
  else say('  hint: run it again with --debug and report what it prints');
  return EXIT.failure;
}

/** `1:02:03.4`, or `3.4 s` below a minute. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, '0'));
  return `${Math.floor(whole / 3600)}:${parts.join(':')}`;
}
