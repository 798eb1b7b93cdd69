/** Words that are added to the user's QEMU command line. */
export interface ArgvChange {
  readonly added: readonly string[];
  readonly why: string;
}
