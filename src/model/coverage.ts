/**
 * - `trapped`: every access of the guest leaves QEMU's fast path and is in the recording
 * - `bypassed`: mapped into the guest, so accesses leave no trace
 * - `emulated`: answered by a part of QEMU that the recording does not look at
 * - `unknown`: nothing that we could ask told us
 */
export type CoverageState = 'trapped' | 'bypassed' | 'emulated' | 'unknown';

export interface CoverageRange {
  /** `Device.name` */
  readonly device: string;
  /** `BAR0`, `ROM`, `config`, … */
  readonly region: string;
  /** First byte within the region, and how many. */
  readonly offset: number;
  readonly lengthBytes: number;
  readonly state: CoverageState;
  /** The evidence: what was asked and what it answered. */
  readonly why: string;
}

/** What a recording could and could not see. Part of every output. */
export interface CoverageStatement {
  /** `head`: what was known at the start; `end`: what is known at the end, and final. */
  readonly phase: 'head' | 'end';
  readonly ranges: readonly CoverageRange[];
  /** Limits that are of no one range: times of the poll, no vCPU, a model that splits accesses. */
  readonly notes: readonly string[];
}
