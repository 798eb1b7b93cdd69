/** Steps that do something to the VM as a whole, through QMP. */
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import type { Machine } from '../machine/machine.ts';
import { defineStep } from './kind.ts';
import { nothing, type Nothing } from './schemas.ts';

async function tell(machine: Machine, command: string): Promise<void> {
  await (await machine.qmp()).execute(command);
}

export const reset = defineStep<Nothing>({
  name: 'reset',
  about: 'Resets the VM, as its reset button would.',
  example: '- reset: {}',
  schema: nothing,
  limitMs: 30_000,
  needs: ['vm'],
  async run(_, context) {
    const from = context.machine.events.length;
    await tell(context.machine, 'system_reset');
    await context.until(
      () => context.machine.events.slice(from).find(({ name }) => name === 'RESET'),
      'the event RESET',
    );
    return undefined;
  },
});

export const powerDown = defineStep<Nothing>({
  name: 'power-down',
  about: 'Presses the power button, and waits until the guest has shut down.',
  example: '- power-down: {}\n  time-limit: 2m',
  schema: nothing,
  limitMs: 120_000,
  needs: ['vm'],
  async run(_, context) {
    const { machine } = context;
    const from = machine.events.length;
    await tell(machine, 'system_powerdown');
    return context
      .until(
        () => {
          const down = machine.events.slice(from).some(({ name }) => name === 'SHUTDOWN');
          return down ? 'it has shut down' : undefined;
        },
        'a shutdown of the guest',
        () => 'the guest did not heed the power button: has it ACPI, and somebody who listens?',
      )
      .catch((error: unknown) => {
        // QEMU may be gone before its event has come.
        if (error instanceof MmioError && error.code === 'closed') return 'QEMU has ended';
        throw error;
      });
  },
});

export const pause = defineStep<Nothing>({
  name: 'pause',
  about: 'Stops the virtual processors, until a step `continue`.',
  example: '- pause: {}',
  schema: nothing,
  limitMs: 10_000,
  needs: ['vm'],
  async run(_, { machine }) {
    await machine.vm.pause();
    return undefined;
  },
});

export const resume = defineStep<Nothing>({
  name: 'continue',
  about: 'Lets the virtual processors go on.',
  example: '- continue: {}',
  schema: nothing,
  limitMs: 10_000,
  needs: ['vm'],
  async run(_, { machine }) {
    await machine.vm.resume();
    return undefined;
  },
});

const qmpSchema = z.strictObject({
  execute: z.string().regex(/^[a-z][a-z0-9_-]*$/, { error: 'a command of QMP' }),
  arguments: z.record(z.string(), z.unknown()).optional(),
});

/** These are the recording's own business, or end what the steps stand on. */
const FORBIDDEN = ['quit', 'qmp_capabilities', 'trace-event-set-state'];

export const qmp = defineStep<z.infer<typeof qmpSchema>>({
  name: 'qmp',
  about: 'Runs any command of QMP; its answer is kept.',
  example: '- qmp: { execute: query-pci }',
  schema: qmpSchema,
  limitMs: 30_000,
  needs: ['vm'],
  check: ({ execute }) =>
    FORBIDDEN.includes(execute)
      ? [`${execute} would end the recording: stop-recording does that`]
      : [],
  async run({ execute, arguments: args }, context) {
    const client = await context.machine.qmp();
    const answer = await client.execute(execute, args, context.limit);
    const text = JSON.stringify(answer, null, 2);
    await context.lab.folder.write(context.fileName('answer.json'), `${text}\n`);
    return text.length <= 80 ? text.replaceAll(/\s+/g, ' ') : undefined;
  },
});
