import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SpoolWriter } from './spool-writer.ts';

/** QEMU has closed by then a log that it has left (util/rcu.c waits 50 ms for more, and for readers). */
const CLOSED_LATER_MS = 300;
const LOOK_MS = 2;

/**
 * Has QEMU log into another file of ours, if it logs into the one before: told to where its log was
 * sent elsewhere, it would be where it belongs again, and nobody would know that it was not. Throws
 * what telling it throws.
 *
 * @returns `left` if it logs elsewhere, and was told nothing; `back` if somebody sent its log elsewhere
 *   just when it was told
 */
export async function moveLog(
  writer: Pick<SpoolWriter, 'logInto' | 'holdsOpen' | 'othersFiles'>,
  from: string,
  to: string,
): Promise<'moved' | 'left' | 'back'> {
  const before = writer.othersFiles?.();
  if (!(await isWritten(writer, from))) return 'left';
  await writer.logInto(to);
  if (!isAnyNew(before, writer.othersFiles?.())) return 'moved';
  // A file that it was sent to in between it has just left, and is still to close. If it is ours that
  // closes, it was sent there after it was told: whoever watches the log sees that it is elsewhere.
  return (await isWritten(writer, to)) ? 'back' : 'moved';
}

/** Whether QEMU writes files of others that it did not write before; false where nobody can say. */
export function isAnyNew(
  before: readonly string[] | undefined,
  now: readonly string[] | undefined,
): boolean {
  return now?.some((file) => before?.includes(file) === false) === true;
}

/** One that is open need not be written: one that grows is, and one that stays open for longer. */
export async function isWritten(
  writer: Pick<SpoolWriter, 'holdsOpen'>,
  path: string,
): Promise<boolean> {
  const size = () => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  const begun = size();
  for (let waitedMs = 0; writer.holdsOpen(path) === true; waitedMs += LOOK_MS) {
    if (waitedMs >= CLOSED_LATER_MS || size() > begun) return true;
    await sleep(LOOK_MS);
  }
  return writer.holdsOpen(path) !== false;
}
