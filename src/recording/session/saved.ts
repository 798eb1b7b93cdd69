/** What a recording keeps in its folder is checked when it is read: a file may be of anybody's making. */
import { z } from 'zod';
import { MmioError, messageOf } from '../../base/errors.ts';
import type { SourcePosition } from '../../model/position.ts';

/** Raised with every change of what is kept: another version's cannot be resumed. */
export const SESSION_VERSION = 3;

const LEFT = 'what was recorded until then is in the outputs; the rest is in the spool';

export const positionSchema: z.ZodType<SourcePosition> = z.object({
  segment: z.number(),
  offset: z.number(),
});

/**
 * Throws MmioError `damaged` where a value is not what it should be.
 *
 * @param what names it, for people
 */
export function checkSaved<Saved>(schema: z.ZodType<Saved>, value: unknown, what: string): Saved {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new MmioError('damaged', `${what} is not what a recorder writes`, {
    evidence: result.error.issues
      .slice(0, 3)
      .map(({ path, message }) => `${path.join('.') || 'all of it'}: ${message}`)
      .join('; '),
    hint: LEFT,
  });
}

/** Throws MmioError `damaged`. */
export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new MmioError('damaged', `${what} is not whole`, {
      evidence: messageOf(error),
      hint: LEFT,
      cause: error,
    });
  }
}
