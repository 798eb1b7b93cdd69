import { statSync } from 'node:fs';
import { join } from 'node:path';
import { hammerGuest } from '../support/guests.ts';
import { MMIOBRIDGE, run } from './run.ts';
import { printTable } from './table.ts';

/** Bytes of a recorded access in each format. */
export async function benchSize(dir: string, quick: boolean): Promise<void> {
  const iterations = quick ? 50_000 : 500_000;
  const accesses = 2 * iterations;
  const guest = await hammerGuest({ iterations });
  const suffixes = ['mmiocap', 'mmiocap.gz', 'mmiotrace', 'mmiotrace.gz'];
  const paths = suffixes.map((suffix) => join(dir, `size.${suffix}`));
  const outputs = paths.flatMap((path) => ['-o', path]);
  await run([...MMIOBRIDGE, 'record', '--device', 'dut', ...outputs, '--', ...guest]);
  printTable(
    `size: bytes an access, ${accesses / 1e6} million of the hammer guest (one register, values that count up)`,
    suffixes.map((suffix, index) => [
      `.${suffix}`,
      (statSync(paths[index] ?? '').size / accesses).toFixed(2),
    ]),
  );
}
