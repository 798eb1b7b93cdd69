/**
 * What happens to a recording from outside the log (marks, loss, VM states), each with the place in
 * the spool at which it happened. Written down at once, so that a recorder that is killed loses
 * none: with the spool it determines the recording completely.
 */
import { appendFileSync, readFileSync, truncateSync } from 'node:fs';
import { z } from 'zod';
import { MmioError, systemCodeOf } from '../../base/errors.ts';
import { isBefore, type SourcePosition } from '../../model/position.ts';
import type { LossEvent, MarkEvent, NoticeEvent, VmStateEvent } from '../../model/events.ts';
import { checkSaved, parseJson, positionSchema } from './saved.ts';

export interface JournalEntry {
  /** The event goes before the byte at this place. */
  readonly at: SourcePosition;
  readonly event: MarkEvent | NoticeEvent | LossEvent | VmStateEvent;
}

const time = z.object({ timeNs: z.number() });
const entrySchema: z.ZodType<JournalEntry> = z.object({
  at: positionSchema,
  event: z.discriminatedUnion('kind', [
    time.extend({ kind: z.literal('mark'), text: z.string() }),
    time.extend({ kind: z.literal('notice'), text: z.string() }),
    time.extend({ kind: z.literal('vm-state'), state: z.string() }),
    time.extend({
      kind: z.literal('loss'),
      count: z.number(),
      durationNs: z.number(),
      reason: z.string(),
    }),
  ]),
});

export class Journal {
  readonly #path: string;
  #pending: JournalEntry[] = [];
  /** Entries taken so far, over the whole life of the recording. */
  #taken: number;
  /** Length of the file: whole lines, always. */
  #bytes = 0;
  #closed = false;

  /**
   * Throws MmioError `damaged` where the journal of a recording that is resumed cannot be read.
   *
   * @param taken how many entries are in the outputs already, after a resume
   */
  constructor(path: string, taken?: number) {
    this.#path = path;
    this.#taken = taken ?? 0;
    if (taken === undefined) return;
    const lines = wholeLines(path);
    this.#bytes = Buffer.byteLength(lines);
    this.#pending = parseEntries(lines, path).slice(taken);
  }

  get taken(): number {
    return this.#taken;
  }

  /**
   * Throws MmioError `closed` after `close`, or what the system says if it cannot be written down;
   * then it has not happened.
   */
  add(entry: JournalEntry): void {
    if (this.#closed) throw new MmioError('closed', 'the recording has ended');
    const line = `${JSON.stringify(entry)}\n`;
    try {
      appendFileSync(this.#path, line, { mode: 0o600 });
    } catch (error) {
      cutTo(this.#path, this.#bytes);
      throw error;
    }
    this.#bytes += Buffer.byteLength(line);
    // Places come from asking the system, and two askers may overtake each other.
    const last = this.#pending.at(-1);
    const at = last !== undefined && isBefore(entry.at, last.at) ? last.at : entry.at;
    this.#pending.push({ ...entry, at });
  }

  /** All that was added has been taken, and nothing that comes now will be. */
  close(): void {
    this.#closed = true;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** The place before which reading must stop, if there is one. */
  get nextAt(): SourcePosition | undefined {
    return this.#pending[0]?.at;
  }

  /** The next entry, if all bytes before its place have been read. */
  take(read: SourcePosition): JournalEntry | undefined {
    const [first] = this.#pending;
    if (first === undefined || isBefore(read, first.at)) return undefined;
    this.#pending.shift();
    this.#taken++;
    return first;
  }
}

/** What was written down whole; half a line at the end, of a recorder that was killed, is cut off. */
function wholeLines(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return '';
    throw error;
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole.length < text.length) cutTo(path, Buffer.byteLength(whole));
  return whole;
}

function cutTo(path: string, bytes: number): void {
  try {
    truncateSync(path, bytes);
  } catch (error) {
    if (systemCodeOf(error) !== 'ENOENT') throw error;
  }
}

function parseEntries(lines: string, path: string): JournalEntry[] {
  return lines
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      const what = `line ${index + 1} of ${path}`;
      return checkSaved(entrySchema, parseJson(line, what), what);
    });
}
