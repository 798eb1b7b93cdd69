/** What a scenario says of itself and of its steps, whatever these do. */
import type { Place } from './fault.ts';
import type { Scalar } from './tree.ts';

/** What becomes of the run when a step fails: it ends; it goes on, and has failed; it goes on. */
export type OnFailure = 'stop' | 'continue' | 'ignore';

export interface StepHead {
  /** Unique; becomes a mark, and the name of the step's files. */
  readonly name: string;
  readonly limitMs: number;
  readonly onFailure: OnFailure;
  readonly place: Place;
}

export interface ScenarioHead {
  /** The file, absolute. */
  readonly path: string;
  readonly name: string;
  readonly about: string;
  /** For the whole run; undefined: as long as its steps take. */
  readonly limitMs: number | undefined;
  /** PCI addresses, in full. */
  readonly bind: readonly string[];
  /** As they were when it was read. */
  readonly variables: Readonly<Record<string, Scalar>>;
  /** The files that it was read from, with their text. */
  readonly files: readonly { readonly path: string; readonly text: string }[];
}
