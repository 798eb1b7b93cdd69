import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { VfioUserServer } from '../../src/vfio-user/server.ts';
import { hammerGuest, HAMMER_DONE } from '../support/guests.ts';
import { qemuVersions } from '../support/qemu.ts';
import { complementDevice, vfioUserArgs } from '../support/vfio-user.ts';
import { median, MMIOBRIDGE, run } from './run.ts';
import { printTable } from './table.ts';

/** What of QEMU's vfio one traces by hand. */
const LOGGING = ['-msg', 'timestamp=on', '-trace', 'pci_update_mappings_*'];
for (const event of ['vfio_region_*', 'vfio_pci_*']) LOGGING.push('-trace', event);
const ENDS = { statuses: [HAMMER_DONE] };

/** Accesses a second of a guest to a device on QEMU's vfio path, by the device's own clock. */
export async function benchVfioUser(dir: string, quick: boolean): Promise<void> {
  const iterations = quick ? 10_000 : 40_000;
  const qemu = qemuVersions().find(({ version }) => version === '11.1')?.path ?? '';
  const socket = join(dir, 'device.sock');
  const log = join(dir, 'vfio-user.log');

  /** Writes a second that come to the device while `go` runs the guest, times two. */
  const rateOf = async (go: (guest: readonly string[]) => Promise<unknown>): Promise<number> => {
    let first = 0;
    let last = 0;
    let writes = 0;
    const onWrite = (): void => {
      last = performance.now();
      if (writes++ === 0) first = last;
    };
    await using _server = await VfioUserServer.listen(socket, complementDevice({ onWrite }), {
      onProblem: (problem) => {
        throw problem;
      },
    });
    await go(await hammerGuest({ iterations, device: vfioUserArgs(socket), qemu }));
    if (writes !== iterations) throw new Error(`${writes} writes of ${iterations} came`);
    return (2 * (writes - 1)) / ((last - first) / 1000);
  };
  const record = (suffix: string) => (guest: readonly string[]) =>
    run([...MMIOBRIDGE, 'record', '-o', join(dir, `vfio-user.${suffix}`), '--', ...guest]);

  const kinds: [string, () => Promise<number>, number[]][] = [
    ['not traced', () => rateOf((guest) => run(guest, ENDS)), []],
    [
      'QEMU logs into tmpfs, nobody reads',
      () => {
        rmSync(log, { force: true });
        return rateOf((guest) => run([...guest, ...LOGGING, '-D', log], ENDS));
      },
      [],
    ],
    ['record -o X.mmiotrace', () => rateOf(record('mmiotrace')), []],
    ['record -o X.mmiocap', () => rateOf(record('mmiocap')), []],
  ];
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    for (const [, measure, rates] of kinds) rates.push(await measure());
  }
  const base = median(kinds[0]?.[2] ?? []);
  printTable(
    `vfio-user: accesses a second, ${(2 * iterations) / 1e3} thousand of the hammer guest (TCG) to a vfio-user device of ours, from the first to the last by the device's clock; median and best`,
    kinds.map(([name, , rates]) => [
      name,
      `${median(rates).toFixed(0)} /s`,
      `${Math.max(...rates).toFixed(0)} /s`,
      `${(median(rates) / base).toFixed(2)} of not traced`,
    ]),
  );
}
