/** What happens to a recording in a round, each at a moment that nobody has chosen. */
import { closeSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '../../src/qmp/client.ts';
import type { Bench, Running } from '../support/death.ts';
import type { Random } from './random.ts';

/** How accesses come to the file that is judged: QEMU's log, the plugin, QEMU's log and a collector. */
export const WAYS = ['log', 'plugin', 'bridge'] as const;
export type Way = (typeof WAYS)[number];

export interface Scene {
  readonly way: Way;
  readonly bench: Bench;
  readonly random: Random;
  recorder: Running;
  /** With `bridge` only. */
  collector: Running | undefined;
  /** Starts another collector in the place of one that is gone. */
  readonly listen: () => Promise<Running>;
  /** A monitor of QEMU's that is not the recorder's. */
  readonly monitor: string;
}

export interface Incident {
  readonly name: string;
  /** Where it makes sense. */
  readonly ways: readonly Way[];
  /** Ways in which accesses may be missing after it. */
  readonly loses: readonly Way[];
  readonly happen: (scene: Scene) => Promise<void>;
}

const NEVER: readonly Way[] = [];

export const INCIDENTS: readonly Incident[] = [
  {
    name: 'kill',
    ways: WAYS,
    // The plugin has nowhere to put them meanwhile, and counts.
    loses: ['plugin'],
    happen: async (scene) => {
      await gone(scene.recorder);
      await sleep(scene.random.between(0, 800));
      await resume(scene);
    },
  },
  {
    name: 'stop',
    ways: WAYS,
    loses: NEVER,
    happen: ({ recorder, random }) => pause(recorder, random.between(0, 1500)),
  },
  {
    name: 'killCollector',
    ways: ['bridge'],
    loses: NEVER,
    happen: async (scene) => {
      if (scene.collector !== undefined) await gone(scene.collector);
      await sleep(scene.random.between(0, 800));
      scene.collector = await scene.listen();
    },
  },
  {
    name: 'killBoth',
    ways: ['bridge'],
    loses: NEVER,
    happen: async (scene) => {
      await Promise.all([scene.recorder, scene.collector!].map(gone));
      scene.collector = await scene.listen();
      await resume(scene);
    },
  },
  {
    name: 'stopCollector',
    ways: ['bridge'],
    loses: NEVER,
    happen: ({ collector, random }) => pause(collector!, random.between(0, 1500)),
  },
  {
    name: 'fullSpool',
    ways: WAYS,
    loses: WAYS,
    happen: ({ bench, random }) => fillFor(bench.runDir, random.between(0, 800)),
  },
  {
    name: 'fullOutput',
    ways: WAYS,
    loses: NEVER,
    happen: ({ bench, random }) => fillFor(bench.path('disk'), random.between(0, 1200)),
  },
  {
    name: 'secondRecorder',
    ways: WAYS,
    loses: NEVER,
    happen: async ({ bench, monitor }) => {
      const args = ['record', '--qmp', monitor, '--device', 'dut', '-o', 'second.mmiotrace'];
      const { status } = await bench.run(...args);
      if (status === 0) throw new Error('a second recorder was let in');
    },
  },
  {
    name: 'eventsOff',
    ways: ['log', 'bridge'],
    loses: ['log', 'bridge'],
    happen: async ({ monitor, random }) => {
      await hmp(monitor, 'trace-event memory_region_ops_* off');
      await sleep(random.between(0, 1500));
    },
  },
  {
    name: 'logElsewhere',
    ways: ['log', 'bridge'],
    loses: ['log', 'bridge'],
    happen: async ({ bench, monitor, random }) => {
      await hmp(monitor, `logfile ${bench.path('elsewhere.log')}`);
      await sleep(random.between(0, 1500));
    },
  },
  {
    name: 'logNowhere',
    ways: ['log', 'bridge'],
    loses: ['log', 'bridge'],
    happen: async ({ monitor, random }) => {
      await hmp(monitor, 'logfile /dev/null');
      await sleep(random.between(0, 1500));
    },
  },
];

export async function resume(scene: Scene): Promise<void> {
  const [id = ''] = scene.bench.sessions().filter((name) => name !== FILLER);
  const resumed = scene.bench.start(['resume', id]);
  await resumed.says(/^resuming /m);
  scene.recorder = resumed;
}

async function gone(running: Running): Promise<void> {
  running.kill('SIGKILL');
  await running.exited;
}

async function pause(running: Running, ms: number): Promise<void> {
  running.kill('SIGSTOP');
  await sleep(ms);
  running.kill('SIGCONT');
}

async function hmp(monitor: string, line: string): Promise<void> {
  const qmp = await QmpClient.connect(monitor);
  try {
    await qmp.hmp(line);
  } finally {
    await qmp.close();
  }
}

const FILLER = 'filler';

/** Another program takes all that is left of a file system, and gives it back. */
async function fillFor(dir: string, ms: number): Promise<void> {
  const path = join(dir, FILLER);
  const file = openSync(path, 'a');
  const { bsize } = statfsSync(dir);
  try {
    for (const chunk of [1 << 20, bsize]) {
      try {
        for (;;) writeSync(file, new Uint8Array(chunk));
      } catch {
        // Less fits now, or nothing.
      }
    }
  } finally {
    closeSync(file);
  }
  await sleep(ms);
  rmSync(path, { force: true });
}
