/** Who writes into the spool: QEMU its log, or we what another source tells. */
export interface SpoolWriter {
  /** Goes on in another segment. */
  logInto(path: string): Promise<void>;
  /** Off: accesses are not written, until it is on again. */
  trace(on: boolean): Promise<void>;
  /** Whether a segment may still grow; undefined where nobody can say. */
  holdsOpen(path: string): boolean | undefined;
}
