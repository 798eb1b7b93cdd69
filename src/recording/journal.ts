/**
 * What happens to a recording from outside the log (marks, loss, VM states), each with the place in
 * the spool at which it happened. Written down at once, so that a recorder that is killed loses
 * none: with the spool it determines the recording completely.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import type { SourcePosition } from '../model/access-batch.ts';
import type { LossEvent, MarkEvent, VmStateEvent } from '../model/events.ts';

export interface JournalEntry {
  /** The event goes before the byte at this place. */
  readonly at: SourcePosition;
  readonly event: MarkEvent | LossEvent | VmStateEvent;
}

function isBefore(a: SourcePosition, b: SourcePosition): boolean {
  return a.segment < b.segment || (a.segment === b.segment && a.offset < b.offset);
}

export class Journal {
  readonly #path: string;
  #pending: JournalEntry[] = [];
  /** Entries taken so far, over the whole life of the recording. */
  #taken: number;

  /** @param taken how many entries are in the outputs already, after a resume */
  constructor(path: string, taken?: number) {
    this.#path = path;
    this.#taken = taken ?? 0;
    if (taken !== undefined) this.#pending = readEntries(path).slice(taken);
  }

  get taken(): number {
    return this.#taken;
  }

  add(entry: JournalEntry): void {
    appendFileSync(this.#path, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
    // Places come from asking the system, and two askers may overtake each other.
    const last = this.#pending.at(-1);
    const at = last !== undefined && isBefore(entry.at, last.at) ? last.at : entry.at;
    this.#pending.push({ ...entry, at });
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

function readEntries(path: string): JournalEntry[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  return whole
    .split('\n')
    .filter((line) => line !== '')
    .map((line): JournalEntry => JSON.parse(line) as JournalEntry);
}
