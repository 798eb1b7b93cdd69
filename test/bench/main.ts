/**
 * `npm run bench [-- --quick]`: each figure beside what it is to be compared with, measured in one
 * run and in turns, because machines differ and are shared. Nothing is asserted.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { benchBridge } from './bridge-bench.ts';
import { benchConvert } from './convert-bench.ts';
import { benchGuest } from './guest-bench.ts';
import { benchLive } from './live-bench.ts';
import { benchMemory } from './memory-bench.ts';
import { benchPlugin } from './plugin-bench.ts';
import { benchSize } from './size-bench.ts';
import { benchVfioUser } from './vfio-user-bench.ts';

const quick = process.argv.includes('--quick');
const only = process.argv.slice(2).filter((word) => !word.startsWith('-'));
const benches = {
  convert: benchConvert,
  guest: benchGuest,
  memory: benchMemory,
  plugin: benchPlugin,
  size: benchSize,
  'vfio-user': benchVfioUser,
  bridge: benchBridge,
  live: benchLive,
};

const dir = mkdtempSync('/dev/shm/mmiobridge-bench-');
process.stdout.write(`${cpus().length} x ${cpus()[0]?.model ?? '?'}, Node ${process.version}\n`);
try {
  for (const [name, bench] of Object.entries(benches)) {
    if (only.length > 0 && !only.includes(name)) continue;
    await bench(dir, quick);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
