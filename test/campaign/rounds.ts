/**
 * One round: a guest that counts is recorded, things happen to the recorder, to the collector, to
 * QEMU and to the disks, and what comes out is held against the counter. See docs/reliability.md.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { CollectorHost } from '../support/bridge.ts';
import { Bench, counted, toldAtEnd, type Counted, type Running } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import { pluginVariants } from '../support/plugin.ts';
import { INCIDENTS, resume, type Scene, type Way } from './incidents.ts';
import type { Random } from './random.ts';

export interface Round {
  readonly what: string;
  readonly accesses: number;
  /** The recording says that it is complete. */
  readonly complete: boolean;
  /** What may not be; empty if all is well. */
  readonly faults: readonly string[];
}

const OUTPUT = 'disk/dut.mmiotrace';
const COLLECTOR = 'tcp://127.0.0.1:7441';

export async function runRound(way: Way, random: Random, only?: string): Promise<Round> {
  const bench = new Bench();
  const incidents = Array.from({ length: 1 + random.below(3) }, () =>
    random.pick(
      INCIDENTS.filter(({ name, ways }) => ways.includes(way) && (only ?? name) === name),
    ),
  );
  const what = `${way}: ${incidents.map(({ name }) => name).join(', ')}`;
  try {
    bench.mountRunDir('192m');
    bench.mountDisk('disk', '2g');
    const scene = await begin(way, bench, random);
    await bench.grown(OUTPUT, 50_000);
    for (const { happen } of incidents) {
      await sleep(random.between(0, 500));
      await happen(scene);
    }
    await sleep(random.between(0, 1500));
    const status = await end(scene);
    const mayMiss = incidents.some(({ loses }) => loses.includes(way));
    const judged = judge(bench.read(OUTPUT), status, mayMiss);
    // With what was said, a fault can be understood.
    const said = [scene.recorder.stderr, scene.collector?.stderr ?? ''];
    return {
      what,
      ...judged,
      faults: [...judged.faults, ...(judged.faults.length > 0 ? said : [])],
    };
  } catch (error) {
    const faults = [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    return { what, accesses: 0, complete: false, faults };
  } finally {
    await bench.close();
  }
}

async function begin(way: Way, bench: Bench, random: Random): Promise<Scene> {
  const monitor = bench.path('monitor');
  const variants = pluginVariants().filter(({ name }) => !name.includes('San'));
  const variant = way === 'plugin' ? random.pick(variants) : undefined;
  if (variant !== undefined)
    process.env['MMIOBRIDGE_PLUGIN_DIR'] = variant.env.MMIOBRIDGE_PLUGIN_DIR;
  const guest = [
    ...(await hammerGuest({
      iterations: 0,
      // The plugin is so fast that what it records would be too much to hold.
      pauseTurns: random.pick([way === 'plugin' ? 2000 : 0, 5000, 40_000]),
      ...(variant && { qemu: variant.qemu }),
    })),
    '-qmp',
    `unix:${monitor},server=on,wait=off`,
  ];
  const host = new CollectorHost(bench);
  const listen = () => host.listen(COLLECTOR, '-o', bench.path('disk/{device}.mmiotrace'));
  const collector = way === 'bridge' ? await listen() : undefined;
  const args = {
    log: ['-o', OUTPUT],
    plugin: ['--source', 'plugin', '-o', OUTPUT],
    bridge: ['--token-file', 'token', '--send-to', COLLECTOR],
  }[way];
  const recorder = await bench.record(args, guest);
  return { way, bench, random, recorder, collector, listen, monitor };
}

async function end(scene: Scene): Promise<number | null> {
  const status = await endRecorder(scene);
  if (scene.collector !== undefined) await scene.collector.says(/ dut: finished: /);
  return status;
}

async function endRecorder(scene: Scene): Promise<number | null> {
  for (let tries = 0; ; tries++) {
    const { recorder } = scene;
    if (recorder.child.exitCode === null) recorder.kill('SIGINT');
    const exit = await within(60_000, recorder);
    // It stood still for want of room, and said how it goes on.
    if (exit !== 1 || tries > 3 || scene.bench.sessions().length === 0) return exit;
    await resume(scene);
  }
}

async function within(ms: number, running: Running): Promise<number | null> {
  const late = sleep(ms, undefined, { ref: false });
  const exit = await Promise.race([running.exited, late]);
  if (exit === undefined) throw new Error(`it does not end: ${running.stderr}`);
  return exit.status;
}

function judge(text: string, status: number | null, mayMiss: boolean): Omit<Round, 'what'> {
  const faults: string[] = [];
  const read = counted(text);
  const { pairs, gaps } = read;
  const complete = toldAtEnd(text).how === 'complete';
  if (complete && gaps.length > 0) faults.push(`complete, with ${gaps.length} gaps`);
  // Without its recorder, QEMU itself fills the spool's file system.
  const isExplained = mayMiss || text.includes('the file system of the spool was full');
  if (!isExplained && gaps.length > 0)
    faults.push(`${gaps.length} gaps, and nothing that explains them`);
  faults.push(...miscounted(read));
  if (status !== 130) faults.push(`it ended with status ${status}`);
  return { accesses: 2 * pairs, complete, faults };
}

/** Where all that is missing was counted, the counts are right. */
function miscounted({ lines, gaps }: Counted): string[] {
  const lost = lines.flatMap((line, index) => {
    const words = /^MARK \S+ Lost (\d+|an unknown number of) events/.exec(line);
    return words === null ? [] : [{ index, count: Number(words[1]) }];
  });
  if (lost.some(({ count }) => Number.isNaN(count))) return [];
  const missing = gaps.reduce((sum, gap) => sum + gap.missing, 0);
  const last = lines.findLastIndex((line) => /^[RW] /.test(line));
  const before = lost.filter(({ index }) => index < last);
  const told = before.reduce((sum, { count }) => sum + count, 0);
  return told === missing ? [] : [`${missing} are missing, ${told} are said to be`];
}
