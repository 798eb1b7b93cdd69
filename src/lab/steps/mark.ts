import { z } from 'zod';
import { defineStep } from './kind.ts';

const MAX_CHARS = 1000;

export const mark = defineStep<string>({
  name: 'mark',
  about: 'Puts a mark into the recording.',
  example: '- mark: the cable is plugged in',
  schema: z.string().min(1).max(MAX_CHARS),
  limitMs: 10_000,
  needs: ['recording'],
  // Every step is a mark, by its name.
  nameOf: (text) => text,
  run: () => Promise.resolve(undefined),
});
