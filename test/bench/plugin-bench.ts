import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { HAMMER_DONE, hammerGuest } from '../support/guests.ts';
import { oracleDrivers, oracleGuest } from '../support/oracle.ts';
import { qemuVersions, type QemuVersion } from '../support/qemu.ts';
import { secondsOfLog, secondsOfText } from './hammer-log.ts';
import { MMIOBRIDGE, median, run } from './run.ts';
import { printTable } from './table.ts';

const LOGGING = ['-msg', 'timestamp=on'];
for (const event of ['pci_update_mappings_*', 'memory_region_ops_*']) LOGGING.push('-trace', event);
const ENDS = { statuses: [HAMMER_DONE] };

type Kind = [name: string, measure: () => Promise<number>, seconds: number[]];

/** What the QEMU plugin costs a guest of TCG: for each access, and for a boot without one. */
export async function benchPlugin(dir: string, quick: boolean): Promise<void> {
  const found = qemuVersions().find(({ version }) => version === '10.0');
  if (found === undefined) throw new Error('QEMU 10.0 is not there');
  await benchAccesses(dir, quick ? 2 : 5, found);
  await benchBoot(dir, quick ? 1 : 3, found);
}

async function benchAccesses(dir: string, rounds: number, { version, path: qemu }: QemuVersion) {
  const iterations = 500_000;
  const guest = await hammerGuest({ iterations, qemu });
  const idle = await hammerGuest({ iterations: 1, qemu });
  const recorded = async (source: string): Promise<number> => {
    const out = join(dir, 'plugin.mmiotrace');
    const args = ['record', '--source', source, '--device', 'dut', '-o', out, '--', ...guest];
    await run([...MMIOBRIDGE, ...args]);
    return secondsOfText(out);
  };
  const kinds: Kind[] = [
    [
      'QEMU logs memory_region_ops_* into tmpfs, nobody reads',
      async () => {
        const log = join(dir, 'plugin.log');
        rmSync(log, { force: true });
        await run([...guest, ...LOGGING, '-D', log], ENDS);
        const seconds = secondsOfLog(log);
        rmSync(log);
        return seconds;
      },
      [],
    ],
    ['record', () => recorded('log'), []],
    ['record --source plugin', () => recorded('plugin'), []],
    [
      'not traced',
      async () => (await run(guest, ENDS)).seconds - (await run(idle, ENDS)).seconds,
      [],
    ],
  ];
  await measure(kinds, rounds);
  print(
    `plugin: ${(2 * iterations) / 1e6} million accesses (TCG, edu, QEMU ${version}), from the first to the last; not traced: the process less one of two accesses; median and best`,
    kinds,
    'of the log alone',
  );
}

async function benchBoot(dir: string, rounds: number, { version, path: qemu }: QemuVersion) {
  const [driver] = oracleDrivers;
  if (driver === undefined) throw new Error('no driver');
  // The first process switches the machine off: nothing is measured but the boot.
  const kernelWords = 'rdinit=/bin/busybox -- poweroff -f';
  const guest = await oracleGuest(driver, join(dir, 'boot'), { qemu, kernelWords });
  const args = (source: string) => [
    'record',
    '--source',
    source,
    '--device',
    driver.qemuId,
    '-o',
    join(dir, 'boot.mmiocap'),
    '--',
    ...guest,
  ];
  const incomplete = { statuses: [0, 3] };
  const kinds: Kind[] = [
    ['alone', async () => (await run(guest)).seconds, []],
    ['record', async () => (await run([...MMIOBRIDGE, ...args('log')])).seconds, []],
    [
      'record --source plugin',
      async () => (await run([...MMIOBRIDGE, ...args('plugin')], incomplete)).seconds,
      [],
    ],
  ];
  await measure(kinds, rounds);
  print(
    `plugin: boot of Linux to its first process (TCG, QEMU ${version}), our own start included; median and best`,
    kinds,
    'of the boot alone',
  );
}

async function measure(kinds: readonly Kind[], rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const [, take, seconds] of kinds) seconds.push(await take());
  }
}

function print(heading: string, kinds: readonly Kind[], ofWhat: string): void {
  const base = median(kinds[0]?.[2] ?? []);
  const rows = kinds.map(([name, , seconds]) => [
    name,
    `${median(seconds).toFixed(2)} s`,
    `${Math.min(...seconds).toFixed(2)} s`,
    `${(median(seconds) / base).toFixed(2)} ${ofWhat}`,
  ]);
  printTable(heading, rows);
}
