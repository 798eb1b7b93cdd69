import { z } from 'zod';
import { attachMachine } from '../machine/begin-machine.ts';
import { SerialPort } from '../machine/serial-port.ts';
import { defineStep } from './kind.ts';
import { beside, checkRecord, recordOptions, recordSchema } from './record-options.ts';

const schema = z.strictObject({
  qmp: z.string().min(1),
  agent: z.string().min(1).optional(),
  serial: z.record(z.string(), z.string().min(1)).optional(),
  marks: z
    .union([z.string().min(1), z.strictObject({ file: z.string().min(1) })], {
      error: "the file that the port's chardev logs into, or { file: PATH IN THE GUEST }",
    })
    .optional(),
  record: recordSchema.optional(),
});

export const attach = defineStep<z.infer<typeof schema>>({
  name: 'attach',
  about: 'Records a QEMU that runs already; it goes on when the run is over.',
  example: `- attach:
    qmp: /run/vm/qmp.sock
    agent: /run/vm/qga.sock
    serial: { console: /var/log/vm/ttyS0.log }
    record: { device: nic0 }`,
  schema,
  limitMs: 60_000,
  needs: [],
  check({ record, marks, agent }) {
    const faults = checkRecord(record);
    if (typeof marks === 'object' && agent === undefined) {
      faults.push('marks from a file are read through the agent: agent: SOCKET');
    }
    return faults;
  },
  async run({ qmp, agent, serial, marks, record }, { lab, signal }) {
    const path = (name: string) => beside(lab.scenario.path, name);
    const ports = new Map(
      Object.entries(serial ?? {}).map(([name, file]) => [
        name,
        new SerialPort(name, path(file), undefined),
      ]),
    );
    if (typeof marks === 'string')
      ports.set('marks', new SerialPort('marks', path(marks), undefined));
    const address = /^[^/]*:/.test(qmp) ? qmp : path(qmp);
    const agentSocket = agent === undefined ? undefined : path(agent);
    const way = typeof marks === 'string' ? 'serial' : marks;
    const options = await recordOptions(record, lab, signal);
    await attachMachine(address, { agentSocket, ports }, way, options, lab);
    return `QEMU ${lab.requireMachine().started.info.header.qemuVersion.split(' ', 1)[0]}`;
  },
});
