/** Steps that do something to the VM as a whole, through QMP. */
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { isPassedThrough } from '../../model/device.ts';
import { devicesOf } from '../../machine/argv-user.ts';
import { scanArgv } from '../../machine/argv-scan.ts';
import type { Machine } from '../machine/machine.ts';
import { defineStep, type CheckContext } from './kind.ts';

const nothing = z.union([z.null(), z.strictObject({})], { error: 'nothing: it has no options' });
type Nothing = z.infer<typeof nothing>;

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

const snapshotName = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,100}$/, { error: 'a name of letters, digits, ., _ and -' });

const SNAPSHOT_HINT =
  'a snapshot needs a disk that holds it (qcow2), and devices that can be saved: passed-through ones cannot';

/** Passed-through devices cannot be saved; better said before an hour has gone. */
function checkSnapshot(_: string, { before }: CheckContext): string[] {
  const begins = before.find(({ kind }) => kind.name === 'start');
  if (begins === undefined) return [];
  const { qemu } = begins.options as { readonly qemu: readonly string[] };
  let drivers: string[];
  try {
    drivers = devicesOf(scanArgv(qemu).options).map(({ driver }) => driver);
  } catch {
    return [];
  }
  const vfio = drivers.filter((driver) => driver.startsWith('vfio-'));
  if (vfio.length === 0) return [];
  return [
    `a VM with ${vfio.join(', ')} can have no snapshot: passed-through devices cannot be saved`,
  ];
}

function requireSavable({ watch, started }: Machine): void {
  const { tables } = watch;
  const passed = [...started.counts.tables.devices, ...tables.devices]
    .filter(Boolean)
    .find((device) => isPassedThrough(device));
  if (passed === undefined) return;
  throw new MmioError('refused', 'a VM with a passed-through device can have no snapshot', {
    evidence: `${passed.name}: ${passed.type}`,
    hint: SNAPSHOT_HINT,
  });
}

export const saveSnapshot = defineStep<string>({
  name: 'save-snapshot',
  about: 'Saves the whole VM under a name, in its disk image.',
  example: '- save-snapshot: before-driver',
  schema: snapshotName,
  limitMs: 300_000,
  needs: ['vm'],
  check: checkSnapshot,
  async run(name, { machine, lab, leftMs }) {
    requireSavable(machine);
    await machine.hmp(`savevm ${name}`, 'save a snapshot', SNAPSHOT_HINT, leftMs);
    lab.snapshots.push(`saved ${name}`);
    return undefined;
  },
});

export const loadSnapshot = defineStep<string>({
  name: 'load-snapshot',
  about: 'Puts the whole VM back to what was saved under a name.',
  example: '- load-snapshot: before-driver',
  schema: snapshotName,
  limitMs: 300_000,
  needs: ['vm'],
  check: checkSnapshot,
  async run(name, { machine, lab, leftMs }) {
    requireSavable(machine);
    const qmp = await machine.qmp();
    const { running } = await qmp.execute<{ readonly running?: boolean }>('query-status');
    await machine.hmp(`loadvm ${name}`, 'load a snapshot', SNAPSHOT_HINT, leftMs);
    // A snapshot of a VM that stood still stands still; one that ran before goes on.
    if (running === true) await machine.vm.resume();
    lab.snapshots.push(`loaded ${name}`);
    return undefined;
  },
});

const plugSchema = z.union([
  z.strictObject({
    device: z.string().min(1),
    netdev: z.string().min(1).optional(),
    drive: z.string().min(1).optional(),
  }),
  z
    .string()
    .min(1)
    .transform((device) => ({ device, netdev: undefined, drive: undefined })),
]);

const PLUG_HINT =
  'it is written as behind -device; a q35 has room for it only at a pcie-root-port: bus=PORT';

export const plug = defineStep<z.infer<typeof plugSchema>>({
  name: 'plug',
  about: 'Plugs a device in while the guest runs; written as behind -device, -netdev and -drive.',
  example: "- plug: { netdev: 'user,id=n1', device: 'e1000e,netdev=n1,id=nic1' }",
  schema: plugSchema,
  limitMs: 30_000,
  needs: ['vm'],
  async run({ device, netdev, drive }, { machine }) {
    if (netdev !== undefined) await machine.hmp(`netdev_add ${netdev}`, 'add a netdev');
    if (drive !== undefined) await machine.hmpSays(`drive_add 0 ${drive}`, /^OK/, 'add a drive');
    await machine.hmp(`device_add ${device}`, 'plug the device in', PLUG_HINT);
    return device;
  },
});

const deviceId = z.string().regex(/^[A-Za-z][A-Za-z0-9._-]*$/, { error: "a device's QEMU id" });

export const unplug = defineStep<string>({
  name: 'unplug',
  about: 'Unplugs a device, and waits until the guest has let it go.',
  example: '- unplug: nic1',
  schema: deviceId,
  limitMs: 60_000,
  needs: ['vm'],
  async run(id, context) {
    const { machine } = context;
    const qmp = await machine.qmp();
    const from = machine.events.length;
    await qmp.execute('device_del', { id });
    await context.until(
      async () => {
        const events = machine.events.slice(from);
        if (events.some(({ name, data }) => name === 'DEVICE_DELETED' && data['device'] === id)) {
          return true;
        }
        if (events.some(({ name }) => /UNPLUG_(GUEST_)?ERROR/.test(name))) {
          throw new MmioError('refused', `the guest does not let ${id} go`, {
            evidence: JSON.stringify(events.at(-1)?.data ?? {}),
          });
        }
        // Where somebody has asked for `info mtree -f` before, QEMU never says so (machine/flat-view.ts).
        const children = await qmp.execute<readonly { readonly name: string }[]>('qom-list', {
          path: '/machine/peripheral',
        });
        return children.some(({ name }) => name === id) ? undefined : true;
      },
      `the guest's letting go of ${id}`,
      () => 'does the guest support hot-plugging (Linux: acpiphp, pciehp), and does it run?',
      100,
    );
    return undefined;
  },
});

const mediaSchema = z.strictObject({
  device: z.string().min(1),
  file: z.string().nullable(),
  format: z.string().optional(),
});

export const changeMedia = defineStep<z.infer<typeof mediaSchema>>({
  name: 'change-media',
  about: 'Puts another image into a drive with removable media; null takes it out.',
  example: '- change-media: { device: cd0, file: /images/virtio-win.iso }',
  schema: mediaSchema,
  limitMs: 30_000,
  needs: ['vm'],
  async run({ device, file, format }, { machine }) {
    const qmp = await machine.qmp();
    const blocks =
      await qmp.execute<readonly { device: string; qdev?: string; removable: boolean }[]>(
        'query-block',
      );
    const found = blocks.find(
      ({ device: name, qdev }) =>
        name === device || qdev === device || qdev?.split('/').at(-1) === device,
    );
    if (found === undefined || !found.removable) {
      const known = blocks.filter(({ removable }) => removable);
      throw new MmioError('not-found', `there is no drive with removable media called ${device}`, {
        evidence: `there is: ${known.map(({ device: name, qdev }) => [name, qdev].filter(Boolean).join(' or ')).join(', ') || 'none'}`,
      });
    }
    const id = found.qdev === undefined ? { device: found.device } : { id: found.qdev };
    if (file === null) {
      await qmp.execute('eject', { ...id, force: true });
      return 'taken out';
    }
    await qmp.execute('blockdev-change-medium', {
      ...id,
      filename: file,
      force: true,
      ...(format !== undefined && { format }),
    });
    return file;
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
