/** Steps that change what the VM has while it runs. */
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { defineStep } from './kind.ts';

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
