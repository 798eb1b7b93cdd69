import { writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { bytes } from '../../base/format.ts';
import { runCommand } from '../../host/command.ts';
import { defineStep } from './kind.ts';
import { word } from './schemas.ts';

const SHOWN_LINES = 6;

const schema = z.union([
  z.strictObject({
    command: z.array(word).min(1),
    'expect-exit': z.union([z.number().int(), z.literal('any')]).optional(),
  }),
  z
    .string()
    .min(1)
    .transform((line) => ({ command: ['/bin/sh', '-c', line], 'expect-exit': undefined })),
]);

export const hostRun = defineStep<z.infer<typeof schema>>({
  name: 'host-run',
  about:
    'Runs a program on the host, where --allow-host-commands is given. A text alone is a line for /bin/sh.',
  example: '- host-run: { command: [ping, -c, 3, 10.0.2.15] }',
  schema,
  limitMs: 60_000,
  needs: [],
  check: (_, { allowHostCommands }) =>
    allowHostCommands
      ? []
      : ['commands on the host are off: `lab run --allow-host-commands` takes those of this file'],
  async run(options, context) {
    const wanted = options['expect-exit'] ?? 0;
    const [program = '', ...args] = options.command;
    const exit = await runCommand(program, args, {
      cwd: dirname(context.lab.scenario.path),
      env: { MMIOBRIDGE_LAB: context.lab.folder.dir },
      ...context.limit,
    });
    await writeFile(await context.saved('stdout'), exit.stdout);
    await writeFile(await context.saved('stderr'), exit.stderr);
    if (wanted !== 'any' && exit.code !== wanted) {
      const how = exit.signal === null ? `ended with ${exit.code}` : `was ended by ${exit.signal}`;
      const said = `${exit.stdout.toString()}${exit.stderr.toString()}`.trimEnd();
      throw new MmioError('refused', `${program} ${how}, not with ${wanted}`, {
        evidence: said.split('\n').slice(-SHOWN_LINES).join('\n') || 'it said nothing',
      });
    }
    return `ended with ${exit.code}, ${bytes(exit.stdout.length)} of output`;
  },
});
