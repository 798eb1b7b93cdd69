import { join } from 'node:path';
import { hammerGuest } from '../support/guests.ts';
import { MMIOBRIDGE, run } from './run.ts';
import { printTable } from './table.ts';
import { writeVfioLog } from './vfio-log.ts';

/** Largest resident set of `record` and `convert`: it must not grow with the recording. */
export async function benchMemory(dir: string, quick: boolean): Promise<void> {
  const millions = quick ? [1, 2] : [10, 50];
  const rows: string[][] = [];
  const add = async (name: string, count: number, argv: readonly string[]): Promise<void> => {
    const { peakMiB } = await run(argv, { watchMemory: true });
    rows.push([name, `${count} million`, `${peakMiB.toFixed(0)} MiB`]);
  };

  // One log as often as is needed: `convert` takes the pieces of one recording.
  const piece = join(dir, 'piece.log');
  writeVfioLog(piece, 1_000_000);
  for (const suffix of ['mmiocap', 'mmiotrace']) {
    for (const count of millions) {
      const pieces = Array.from({ length: count }, () => piece);
      const out = join(dir, `memory.${suffix}`);
      await add(`convert -o X.${suffix}`, count, [...MMIOBRIDGE, 'convert', ...pieces, '-o', out]);
    }
  }
  for (const count of millions) {
    const guest = await hammerGuest({ iterations: count * 500_000 });
    const out = join(dir, 'memory.mmiocap');
    const argv = ['record', '--device', 'dut', '-o', out, '--', ...guest];
    await add('record -o X.mmiocap', count, [...MMIOBRIDGE, ...argv]);
  }
  printTable('memory: largest resident set (VmHWM) of our process', rows);
}
