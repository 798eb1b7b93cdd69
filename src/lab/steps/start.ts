import { z } from 'zod';
import { readImages } from '../machine/disk-images.ts';
import { startMachine } from '../machine/begin-machine.ts';
import { planLaunch } from '../../machine/argv.ts';
import { describeError } from '../../base/errors.ts';
import { splitWords } from '../language/words.ts';
import { defineStep } from './kind.ts';
import { checkRecord, recordOptions, recordSchema } from './record-options.ts';
import { marksSchema, portNames } from './ports.ts';
import { word } from './schemas.ts';

const qemu = z.union(
  [
    z.array(word).min(1),
    z
      .string()
      .min(1)
      .transform((text, context) => {
        const words = splitWords(text);
        if (typeof words !== 'string' && words.length > 0) return words;
        const message = typeof words === 'string' ? words : 'a command line';
        context.addIssue({ code: 'custom', message });
        return z.NEVER;
      }),
  ],
  { error: 'a command line, or a list of its words' },
);

const schema = z.strictObject({
  qemu,
  agent: z.boolean().optional(),
  serial: portNames.optional(),
  marks: marksSchema.optional(),
  record: recordSchema.optional(),
});

export const start = defineStep<z.infer<typeof schema>>({
  name: 'start',
  about: 'Starts a QEMU and records it from its first instruction.',
  example: `- start:
    qemu: qemu-system-x86_64 -accel kvm -m 4G -device vfio-pci,host=0000:01:00.0 disk.qcow2
    serial: [console]
    agent: true
    marks: virtio-serial
    record: { device: 0000:01:00.0 }`,
  schema,
  limitMs: 330_000,
  needs: [],
  check({ qemu: argv, record, agent, marks }) {
    const faults = checkRecord(record);
    if (typeof marks === 'object' && agent !== true) {
      faults.push('marks from a file are read through the agent: agent: true');
    }
    try {
      const needs = { qmpSocket: '/q', logFile: '/l', traceEvents: [], interrupts: true };
      if (planLaunch(argv, needs).usesStdio) {
        faults.push(
          'this QEMU takes the terminal (-nographic, -serial stdio): name its ports under serial:, and write -display none',
        );
      }
    } catch (error) {
      faults.push(describeError(error));
    }
    return faults;
  },
  async run({ qemu: argv, agent, serial, marks, record }, context) {
    const { lab, signal } = context;
    lab.disks = await readImages(argv);
    const wanted = { agent: agent === true, serial: serial ?? [], marks };
    await startMachine(argv, wanted, await recordOptions(record, lab, signal), lab);
    const { started } = context.machine;
    return `QEMU ${started.info.header.qemuVersion.split(' ', 1)[0]}, process ${started.child?.pid ?? '?'}`;
  },
});
