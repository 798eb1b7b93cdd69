/** Steps at the guest's keyboard, mouse and screen. */
import { existsSync } from 'node:fs';
import { z } from 'zod';
import { counted } from '../../base/format.ts';
import { click as clickAt, KEY_PAUSE_MS, pressKeys } from '../machine/input.ts';
import { keysOfCharacter, parseChord, untypable } from '../machine/keys.ts';
import {
  difference,
  photograph,
  readPng,
  takePicture,
  writePng,
  type Picture,
} from '../machine/picture.ts';
import { durationSchema, formatDuration } from '../language/duration.ts';
import { defineStep } from './kind.ts';
import { beside } from './record-options.ts';
import { nothing, type Nothing } from './schemas.ts';

const LIMIT_MS = 60_000;
const LOOK_MS = 250;

const text = z
  .string()
  .min(1)
  .max(10_000)
  .refine((value) => untypable(value) === undefined, {
    error: 'text of characters that a US keyboard has',
  });

const typeSchema = z.union([
  z.strictObject({ text, pause: durationSchema.optional() }),
  text.transform((value) => ({ text: value, pause: undefined })),
]);

export const type = defineStep<z.infer<typeof typeSchema>>({
  name: 'type',
  about: "Types a text on the guest's keyboard, US layout; \\n is Enter.",
  example: '- type: "dmesg | tail\\n"',
  schema: typeSchema,
  limitMs: LIMIT_MS,
  needs: ['vm'],
  async run({ text: value, pause }, context) {
    const qmp = await context.machine.qmp();
    for (const character of value) {
      const keys = keysOfCharacter(character) ?? [];
      await pressKeys(qmp, keys, (ms) => context.pause(ms), pause ?? KEY_PAUSE_MS);
    }
    return counted(Array.from(value).length, 'character');
  },
});

const chord = z.string().refine((value) => parseChord(value) !== undefined, {
  error: 'keys that are held together, such as ctrl-alt-delete, f12 or enter',
});

const keysSchema = z.union([z.array(chord).min(1), chord.transform((one) => [one])]);

export const keys = defineStep<readonly string[]>({
  name: 'keys',
  about: "Presses keys on the guest's keyboard, one chord after the other.",
  example: '- keys: [f12, down, enter]',
  schema: keysSchema,
  limitMs: LIMIT_MS,
  needs: ['vm'],
  async run(chords, context) {
    const qmp = await context.machine.qmp();
    for (const each of chords) {
      await pressKeys(qmp, parseChord(each) ?? [], (ms) => context.pause(ms));
    }
    return chords.join(', ');
  },
});

const pixel = z.number().int().min(0).max(100_000);

const clickSchema = z.strictObject({
  x: pixel,
  y: pixel,
  button: z.enum(['left', 'middle', 'right']).optional(),
});

export const click = defineStep<z.infer<typeof clickSchema>>({
  name: 'click',
  about: 'Clicks at a pixel of the screen; the guest needs a tablet (-device usb-tablet).',
  example: '- click: { x: 512, y: 384, button: left }',
  schema: clickSchema,
  limitMs: 30_000,
  needs: ['vm'],
  async run({ x, y, button = 'left' }, context) {
    const { machine } = context;
    const screen = await takePicture(machine);
    await clickAt(await machine.qmp(), { x, y }, screen, button, (ms) => context.pause(ms));
    return `${button} at ${x}, ${y} of ${screen.width} × ${screen.height}`;
  },
});

export const screendump = defineStep<Nothing>({
  name: 'screendump',
  about: 'Takes a picture of the screen, as PNG.',
  example: '- screendump: {}',
  schema: nothing,
  limitMs: 30_000,
  needs: ['vm'],
  async run(_, context) {
    const path = await context.saved('screen.png');
    const { width, height } = await photograph(context.machine, path);
    return `${width} × ${height}, ${context.lab.folder.nameOf(path)}`;
  },
});

const share = z.number().min(0).max(1);

const waitScreenSchema = z.union(
  [
    z.strictObject({ settled: durationSchema, tolerance: share.optional() }),
    z.strictObject({
      matches: z.string().min(1),
      tolerance: share.optional(),
      area: z.strictObject({ x: pixel, y: pixel, width: pixel, height: pixel }).optional(),
    }),
  ],
  { error: '{ settled: TIME } or { matches: FILE.png }' },
);

/** Of the pixels: a cursor that blinks, a clock. */
const SETTLED = 0.001;
const MATCHES = 0.02;

export const waitScreen = defineStep<z.infer<typeof waitScreenSchema>>({
  name: 'wait-screen',
  about: 'Waits until the screen does not change any more, or looks like a picture.',
  example: '- wait-screen: { matches: desktop.png, tolerance: 0.02 }',
  schema: waitScreenSchema,
  limitMs: LIMIT_MS,
  needs: ['vm'],
  check(options, { scenario }) {
    if (!('matches' in options)) return [];
    const path = beside(scenario.path, options.matches);
    return existsSync(path) ? [] : [`there is no picture ${path}`];
  },
  async run(options, context) {
    const { machine } = context;
    let last: Picture | undefined;
    if ('matches' in options) {
      const wanted = await readPng(beside(context.lab.scenario.path, options.matches));
      const tolerance = options.tolerance ?? MATCHES;
      let nearest = 1;
      const off = await context.until(
        async () => {
          last = await takePicture(machine);
          const differs = difference(wanted, last, options.area);
          nearest = Math.min(nearest, differs);
          return differs <= tolerance ? differs : undefined;
        },
        `a screen like ${options.matches}`,
        async () => {
          const path = await context.saved('instead.png');
          if (last !== undefined) await writePng(last, path);
          const size = (picture: Picture) => `${picture.width} × ${picture.height}`;
          const sizes =
            last !== undefined && size(last) !== size(wanted)
              ? `: it has ${size(last)} pixels, the picture ${size(wanted)}`
              : '';
          return `the nearest differed in ${percent(nearest)} of its pixels, ${percent(tolerance)} is allowed${sizes}`;
        },
        LOOK_MS,
      );
      return `differs in ${percent(off)}`;
    }
    const tolerance = options.tolerance ?? SETTLED;
    let sinceMs = performance.now();
    let changes = 0;
    await context.until(
      async () => {
        const now = await takePicture(machine);
        if (last === undefined || difference(last, now) > tolerance) {
          last = now;
          sinceMs = performance.now();
          changes++;
        }
        return performance.now() - sinceMs >= options.settled ? true : undefined;
      },
      `a screen that stands still for ${formatDuration(options.settled)}`,
      () => `it changed ${counted(changes, 'time')}`,
      LOOK_MS,
    );
    return `after ${counted(changes, 'change')}`;
  },
});

function percent(value: number): string {
  return `${(100 * value).toFixed(2)} %`;
}
