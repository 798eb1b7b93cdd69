import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hammerGuest, HAMMER_DONE } from '../support/guests.ts';
import { secondsOfLog, secondsOfText } from './hammer-log.ts';
import { median, MMIOBRIDGE, run } from './run.ts';
import { printTable } from './table.ts';

/** What `record` asks of QEMU for such a guest. */
const LOGGING = ['-msg', 'timestamp=on'];
for (const event of ['pci_update_mappings_*', 'memory_region_ops_*']) LOGGING.push('-trace', event);
const ENDS = { statuses: [HAMMER_DONE] };

/** How long the guest takes for its accesses: recorded, only logged, and left alone. */
export async function benchGuest(dir: string, quick: boolean): Promise<void> {
  const iterations = 500_000;
  const guest = await hammerGuest({ iterations });
  const idle = await hammerGuest({ iterations: 1 });

  const logged = async (log: string): Promise<number> => {
    rmSync(log, { force: true });
    await run([...guest, ...LOGGING, '-D', log], ENDS);
    const seconds = secondsOfLog(log);
    rmSync(log);
    return seconds;
  };
  const readToo = async (): Promise<number> => {
    const log = join(dir, 'read.log');
    rmSync(log, { force: true });
    const stop = new AbortController();
    const reading = run([process.execPath, '-e', READER, log], { stop: stop.signal });
    await run([...guest, ...LOGGING, '-D', log], ENDS);
    stop.abort();
    await reading;
    const seconds = secondsOfLog(log);
    rmSync(log);
    return seconds;
  };
  const recorded = async (suffix: string): Promise<number> => {
    const out = join(dir, `guest.${suffix}`);
    const text = join(dir, 'guest-text.mmiotrace');
    await run([...MMIOBRIDGE, 'record', '--device', 'dut', '-o', out, '--', ...guest]);
    if (suffix === 'mmiotrace') return secondsOfText(out);
    await run([...MMIOBRIDGE, 'convert', out, '-o', text]);
    return secondsOfText(text);
  };
  const alone = async (): Promise<number> =>
    (await run(guest, ENDS)).seconds - (await run(idle, ENDS)).seconds;

  const kinds: [string, () => Promise<number>, number[]][] = [
    ['QEMU logs into tmpfs, nobody reads', () => logged(join(dir, 'guest.log')), []],
    ['the same, and a Node process reads it every 10 ms', readToo, []],
    [
      'QEMU logs onto disk',
      () => logged(join(tmpdir(), `mmiobridge-bench-${process.pid}.log`)),
      [],
    ],
    ['record -o X.mmiotrace', () => recorded('mmiotrace'), []],
    ['record -o X.mmiocap', () => recorded('mmiocap'), []],
    ['not traced', alone, []],
  ];
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    for (const [, measure, seconds] of kinds) seconds.push(await measure());
  }
  const base = median(kinds[0]?.[2] ?? []);
  printTable(
    `guest: ${(2 * iterations) / 1e6} million accesses (TCG, edu), from the first to the last by QEMU's own stamps; not traced: the process less one of two accesses; median and best`,
    kinds.map(([name, , seconds]) => [
      name,
      `${median(seconds).toFixed(2)} s`,
      `${Math.min(...seconds).toFixed(2)} s`,
      `${(median(seconds) / base).toFixed(2)} of tmpfs alone`,
    ]),
  );
}

/** Reads a growing file and does nothing with it: what any reader costs the guest. */
const READER = `
const fs = require('node:fs');
const bytes = Buffer.alloc(1 << 20);
let file, at = 0;
setInterval(() => {
  try { file ??= fs.openSync(process.argv[1], 'r'); } catch { return; }
  for (let n; (n = fs.readSync(file, bytes, 0, bytes.length, at)) > 0; ) at += n;
}, 10);`;
