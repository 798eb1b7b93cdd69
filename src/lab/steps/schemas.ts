/** Pieces of which the schemas of several kinds are made. */
import { z } from 'zod';
import { messageOf } from '../../base/errors.ts';

/** A step that has no options: `{}`, or nothing at all. */
export const nothing = z.union([z.null(), z.strictObject({})], {
  error: 'nothing: it has no options',
});

export type Nothing = z.infer<typeof nothing>;

/** A word of a command line; YAML takes `2` for a number. */
export const word = z.union([z.string(), z.number().transform(String)]);

/** A regular expression, whose `^` and `$` are ends of lines. */
export const regex = z
  .string()
  .min(1)
  .transform((text, context) => {
    try {
      return new RegExp(text, 'm');
    } catch (error) {
      context.addIssue({ code: 'custom', message: `a regular expression: ${messageOf(error)}` });
      return z.NEVER;
    }
  });
