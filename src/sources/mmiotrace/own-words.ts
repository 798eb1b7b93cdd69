/**
 * What text of our own says of itself: it has MARKs that begin as nobody else's do, and ends with one
 * that tells how many accesses there were, and whether all of them are there (docs/formats.md).
 */
import { count } from '../../base/format.ts';

const END =
  /^mmiobridge: end (complete|incomplete), reads (\d+), writes (\d+)(?:, not shown (\d+))?/;
/** An access that mmiotrace has no line for. */
const ACCESS = /^mmiobridge: (?:pio|config|rom) ([RW]) /;

interface Told {
  readonly isComplete: boolean;
  readonly accesses: number;
  readonly notShown: number | undefined;
}

export class OwnWords {
  #isOurs = false;
  #told: Told | undefined;
  #endsTwice = false;
  #inMarks = 0;

  /** The text of a MARK. */
  mark(text: string): void {
    if (!text.startsWith('mmiobridge:')) return;
    this.#isOurs = true;
    if (ACCESS.test(text)) {
      this.#inMarks++;
      return;
    }
    const end = END.exec(text);
    if (end === null) return;
    const [, how, reads, writes, notShown] = end;
    if (this.#told !== undefined) this.#endsTwice = true;
    this.#told = {
      isComplete: how === 'complete',
      accesses: Number(reads) + Number(writes),
      notShown: notShown === undefined ? undefined : Number(notShown),
    };
  }

  /**
   * Why the text is not complete, by its own words; empty if it says that it is, or says nothing.
   *
   * @param inLines accesses that have a line
   */
  doubts(inLines: number): string[] {
    if (!this.#isOurs) return [];
    const told = this.#told;
    if (told === undefined) return ['it has no end: it was cut off, or is still being written'];
    const doubts = told.isComplete ? [] : ['it says of itself that it is incomplete'];
    if (this.#endsTwice) doubts.push('something stands behind its end');
    const found = inLines + this.#inMarks + (told.notShown ?? 0);
    if (found !== told.accesses) {
      doubts.push(`it tells of ${count(told.accesses)} accesses, and has ${count(found)}`);
    }
    return doubts;
  }
}
