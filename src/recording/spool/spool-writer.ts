/** Who writes into the spool: QEMU its log, or we what another source tells. */
export interface SpoolWriter {
  /** Goes on in another segment. */
  logInto(path: string): Promise<void>;
  /** Off: accesses are not written, until it is on again. */
  trace(on: boolean): Promise<void>;
  /** Whether a segment may still grow; undefined where nobody can say. */
  holdsOpen(path: string): boolean | undefined;
  /**
   * Who else's files it writes: those that are not segments, by descriptor and path; undefined where
   * nobody can say.
   */
  othersFiles?(): readonly string[] | undefined;
  /** Looks whether accesses still come as was arranged; undefined: they do. Throws where it cannot. */
  disturbance(): Promise<Disturbance | undefined>;
}

/** What somebody else may have done, for people. */
export const ELSEWHERE = "QEMU's log was sent elsewhere";

/** Somebody else has a hand in it. */
export interface Disturbance {
  /** For people: `trace events are off: vfio_region_read` */
  readonly what: string;
  /** Arranges it again; throws where it cannot. undefined: it is as it was already. */
  readonly putBack?: () => Promise<void>;
}
