import { z } from 'zod';
import { counted } from '../../base/format.ts';
import { defineStep } from './kind.ts';
import { checkPort } from './waits.ts';

const schema = z.union([
  z.strictObject({ text: z.string().min(1), port: z.string().optional() }),
  z
    .string()
    .min(1)
    .transform((text) => ({ text, port: undefined })),
]);

export const sendSerial = defineStep<z.infer<typeof schema>>({
  name: 'send-serial',
  about: 'Types a text into a serial port.',
  example: '- send-serial: { text: "modprobe nvme\\n", port: console }',
  schema,
  limitMs: 10_000,
  needs: ['vm'],
  check: ({ port }, { before }) => checkPort(port, before),
  async run({ text, port }, { machine }) {
    await machine.port(port).send(text);
    return counted(Array.from(text).length, 'character');
  },
});
