import type { Journal } from '../session/journal.ts';
import type { Spool } from '../spool/spool.ts';

/** What whoever watches a recording writes down, and where. */
export interface Watching {
  readonly spool: Spool;
  readonly journal: Journal;
  /** Session time up to which all is known to have come. */
  readonly goodNs: number;
  readonly nowNs: () => number;
  readonly onProblem: (message: string) => void;
}
