/** What kind of failure it is; the command line maps it to an exit status. */
export type ErrorCode =
  | 'usage' // the command line, or an option's value, is wrong
  | 'not-found' // a file, session, device or program that is not there
  | 'refused' // the other side, or the system, said no
  | 'timeout'
  | 'closed' // the other side went away
  | 'protocol' // the other side broke the rules of its protocol
  | 'damaged' // input that is not what its format says
  | 'io'; // the system failed to read or write

/**
 * The one error family. Printed as three lines: what failed, the evidence (QEMU's own words, the
 * bytes, the path), and what to do about it.
 */
export class MmioError extends Error {
  readonly code: ErrorCode;
  readonly evidence: string | undefined;
  readonly hint: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    detail: {
      readonly evidence?: string | undefined;
      readonly hint?: string | undefined;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = 'MmioError';
    this.code = code;
    this.evidence = detail.evidence;
    this.hint = detail.hint;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The system's code (`ENOSPC`, `ECONNREFUSED`, …) of a Node error, if it has one. */
export function systemCodeOf(error: unknown): string | undefined {
  if (error instanceof MmioError) return undefined;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return error.code;
  }
  return undefined;
}

/** The file system has no room: the same may work later. */
export function isNoRoom(error: unknown): boolean {
  const cause = error instanceof MmioError ? error.cause : error;
  const code = systemCodeOf(cause);
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** On one line: the message, with the evidence or the system's code where there is one. */
export function describeError(error: unknown): string {
  if (error instanceof MmioError) {
    return error.evidence === undefined ? error.message : `${error.message} (${error.evidence})`;
  }
  const code = systemCodeOf(error);
  const message = messageOf(error);
  return code === undefined || message.includes(code) ? message : `${code}: ${message}`;
}
