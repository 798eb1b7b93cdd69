import type { Counters } from '../../model/events.ts';
import type { RemoteState } from './remote.ts';

/** What a recording that runs answers to `status`. */
export interface RecordingStatus {
  readonly session: string;
  readonly elapsedSeconds: number;
  readonly counters: Counters;
  /** Accesses by device name. */
  readonly devices: Readonly<Record<string, number>>;
  readonly marks: number;
  readonly spoolBytes: number;
  readonly spoolLimitBytes: number;
  readonly state: 'recording' | 'guest paused' | 'dropping' | 'draining';
  /** Why an output does not take any more, if it does not. */
  readonly stalled: string | null;
  readonly qemuPid: number | null;
  readonly recorderPid: number;
  readonly outputs: readonly string[];
  /** The collector that it goes to. */
  readonly collector: RemoteState | null;
}
