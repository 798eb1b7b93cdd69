/** What a run leaves as `manifest.json`: all that somebody needs to believe it, or to do it again. */
import type { Counters } from '../../model/events.ts';
import type { CoverageStatement } from '../../model/coverage.ts';
import type { Scalar } from '../language/tree.ts';
import type { BoundDevice } from './binding.ts';
import type { DiskImage } from '../machine/disk-images.ts';
import type { RecordingPlace } from '../machine/stream-watch.ts';

export type RunResult = 'running' | 'passed' | 'failed' | 'interrupted';
export type StepResult = 'passed' | 'failed' | 'ignored' | 'skipped';

export interface StepReport {
  readonly number: number;
  readonly name: string;
  readonly kind: string;
  /** `FILE:LINE`, where the scenario has it. */
  readonly at: string;
  readonly result: StepResult;
  /** ISO 8601; null where it was skipped. */
  readonly started: string | null;
  readonly seconds: number;
  readonly limitSeconds: number;
  /** What it found, or did. */
  readonly detail: string | null;
  readonly failure: StepFailure | null;
  /** In the run's folder. */
  readonly files: readonly string[];
  /** Where its mark stands in the recording; null: there was none. */
  readonly place: RecordingPlace | null;
  /** Accesses from its mark to that of the next step; null: not known. */
  readonly accesses: number | null;
}

export interface StepFailure {
  readonly code: string;
  readonly message: string;
  readonly evidence: string | null;
  readonly hint: string | null;
}

export interface DeviceReport {
  readonly name: string;
  readonly type: string;
  readonly ids: string;
  /** Of a passed-through one, as the host has it; null: not known. */
  readonly subsystem: string | null;
  readonly class: string;
  readonly qemuId: string;
  readonly guestAddress: string;
  readonly hostAddress: string;
  /** Its `-device`, as it was written; null: it was added later, or the VM ran already. */
  readonly options: string | null;
  readonly bars: readonly {
    readonly slot: number;
    readonly start: number;
    readonly sizeBytes: number;
  }[];
}

export interface RecordingReport {
  readonly outputs: readonly string[];
  readonly accesses: number;
  readonly counters: Counters;
  readonly marks: number;
  readonly coverage: CoverageStatement;
  /** Nothing is missing, as far as anyone can tell. */
  readonly complete: boolean;
}

export interface Manifest {
  readonly version: 1;
  readonly tool: string;
  readonly result: RunResult;
  /** Why it is not `passed`. */
  readonly reason: string | null;
  readonly started: string;
  readonly ended: string | null;
  readonly seconds: number;
  readonly scenario: {
    readonly name: string;
    readonly about: string;
    readonly file: string;
    readonly files: readonly { readonly path: string; readonly sha256: string }[];
    readonly variables: Readonly<Record<string, Scalar>>;
  };
  readonly host: {
    readonly name: string;
    readonly kernel: string;
    readonly processor: string;
    readonly machine: string;
  };
  readonly qemu: {
    readonly version: string;
    readonly argv: readonly string[];
    readonly started: boolean;
    /** How it ended; null: it runs on, or was never there. */
    readonly exit: { readonly code: number | null; readonly signal: string | null } | null;
    readonly said: string;
  } | null;
  readonly devices: readonly DeviceReport[];
  readonly bound: readonly BoundDevice[];
  readonly disks: readonly DiskImage[];
  readonly snapshots: readonly string[];
  readonly steps: readonly StepReport[];
  readonly recording: RecordingReport | null;
  /** What cleaning up could not put back. */
  readonly left: readonly string[];
  readonly notices: readonly string[];
}
