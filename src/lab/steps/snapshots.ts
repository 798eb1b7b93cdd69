/** Steps that save and load the whole VM. */
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { scanArgv } from '../../machine/argv-scan.ts';
import { devicesOf } from '../../machine/argv-user.ts';
import { isPassedThrough } from '../../model/device.ts';
import type { Machine } from '../machine/machine.ts';
import { defineStep, type CheckContext } from './kind.ts';

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
