/**
 * One round: a guest that counts is recorded, things happen to the recorder, to QEMU and to the
 * disks, and what comes out is held against the counter. See docs/reliability.md.
 */
import { closeSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '../../src/qmp/client.ts';
import { Bench, counted, toldAtEnd, type Running } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import type { Random } from './random.ts';

export interface Round {
  readonly what: string;
  readonly pairs: number;
  /** The recording says that it is complete. */
  readonly complete: boolean;
  /** What may not be; empty if all is well. */
  readonly faults: readonly string[];
}

/** What happens while it is recorded; true where accesses may be missing after it. */
type Incident = (at: Scene) => Promise<boolean>;

interface Scene {
  readonly bench: Bench;
  readonly random: Random;
  recorder: Running;
  /** A monitor of QEMU's that is not the recorder's. */
  readonly monitor: string;
}

const INCIDENTS: Readonly<Record<string, Incident>> = {
  kill: async (scene) => {
    scene.recorder.kill('SIGKILL');
    await scene.recorder.exited;
    await sleep(scene.random.between(0, 800));
    await resume(scene);
    return false;
  },
  stop: async ({ recorder, random }) => {
    recorder.kill('SIGSTOP');
    await sleep(random.between(0, 1500));
    recorder.kill('SIGCONT');
    return false;
  },
  fullSpool: async ({ bench, random }) => {
    fill(bench.runDir);
    await sleep(random.between(0, 800));
    rmSync(join(bench.runDir, 'filler'), { force: true });
    return true;
  },
  fullOutput: async ({ bench, random }) => {
    fill(bench.path('disk'));
    await sleep(random.between(0, 1200));
    rmSync(join(bench.path('disk'), 'filler'));
    return false;
  },
  secondRecorder: async ({ bench, monitor }) => {
    const args = ['record', '--qmp', monitor, '--device', 'dut', '-o', 'second.mmiotrace'];
    const { status } = await bench.run(...args);
    if (status === 0) throw new Error('a second recorder was let in');
    return false;
  },
  eventsOff: async ({ monitor, random }) => {
    await hmp(monitor, 'trace-event memory_region_ops_* off');
    await sleep(random.between(0, 1500));
    return true;
  },
  logElsewhere: async ({ bench, monitor, random }) => {
    await hmp(monitor, `logfile ${bench.path('elsewhere.log')}`);
    await sleep(random.between(0, 1500));
    return true;
  },
};

export const INCIDENT_NAMES = Object.keys(INCIDENTS);

export async function runRound(random: Random, only?: string): Promise<Round> {
  const bench = new Bench();
  const names = Array.from(
    { length: 1 + random.below(3) },
    () => only ?? random.pick(INCIDENT_NAMES),
  );
  const what = names.join(', ');
  try {
    bench.mountRunDir('192m');
    bench.mountDisk('disk', '2g');
    const monitor = bench.path('monitor');
    const slow = random.pick([0, 5000, 40_000]);
    const guest = [
      ...(await hammerGuest({ iterations: 0, pauseTurns: slow })),
      '-qmp',
      `unix:${monitor},server=on,wait=off`,
    ];
    const recorder = await bench.record(['-o', 'disk/x.mmiotrace'], guest);
    const scene: Scene = { bench, random, recorder, monitor };
    await bench.grown('disk/x.mmiotrace', 50_000);
    let mayMiss = false;
    for (const name of names) {
      await sleep(random.between(0, 500));
      mayMiss = (await INCIDENTS[name]!(scene)) || mayMiss;
    }
    await sleep(random.between(0, 1500));
    const status = await end(scene);
    const judged = judge(bench.read('disk/x.mmiotrace'), status, mayMiss);
    // With what the recorder said, a fault can be understood.
    const said = judged.faults.length > 0 ? [scene.recorder.stderr] : [];
    return { what, ...judged, faults: [...judged.faults, ...said] };
  } catch (error) {
    const faults = [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    return { what, pairs: 0, complete: false, faults };
  } finally {
    await bench.close();
  }
}

async function resume(scene: Scene): Promise<void> {
  const [id = ''] = scene.bench.sessions().filter((name) => name !== 'filler');
  const resumed = scene.bench.start(['resume', id]);
  await resumed.says(/^resuming /m);
  scene.recorder = resumed;
}

async function end(scene: Scene): Promise<number | null> {
  for (let tries = 0; ; tries++) {
    if (scene.recorder.child.exitCode === null) scene.recorder.kill('SIGINT');
    const late = sleep(60_000, undefined, { ref: false });
    const exit = await Promise.race([scene.recorder.exited, late]);
    if (exit === undefined) throw new Error(`it does not end: ${scene.recorder.stderr}`);
    // It stood still for want of room, and said how it goes on.
    if (exit.status !== 1 || tries > 3 || scene.bench.sessions().length === 0) return exit.status;
    await resume(scene);
  }
}

function judge(text: string, status: number | null, mayMiss: boolean): Omit<Round, 'what'> {
  const faults: string[] = [];
  const { pairs, gaps } = counted(text);
  const { how } = toldAtEnd(text);
  const complete = how === 'complete';
  if (complete && gaps.length > 0) faults.push(`complete, with ${gaps.length} gaps`);
  if (!mayMiss && gaps.length > 0)
    faults.push(`${gaps.length} gaps, and nothing that explains them`);
  if (status !== 130) faults.push(`it ended with status ${status}`);
  return { pairs, complete, faults };
}

async function hmp(monitor: string, line: string): Promise<void> {
  const qmp = await QmpClient.connect(monitor);
  try {
    await qmp.hmp(line);
  } finally {
    await qmp.close();
  }
}

function fill(dir: string): void {
  const file = openSync(join(dir, 'filler'), 'a');
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
}
