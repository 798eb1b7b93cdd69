import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MmioError } from '../../src/base/errors.ts';
import { planLaunch, type LaunchPlan } from '../../src/machine/argv.ts';
import {
  cmdlineOf,
  isAlive,
  openFilesOf,
  processOfThread,
  startTimeOf,
} from '../../src/machine/proc.ts';
import { launchQemu, type QemuProcess } from '../../src/machine/process.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { isListening } from '../support/qemu.ts';
import { until } from '../support/soon.ts';

const QEMU = ['qemu-system-x86_64', '-machine', 'pc', '-accel', 'tcg', '-m', '64'];
const QUIET = [...QEMU, '-nodefaults', '-display', 'none', '-device', 'e1000,id=nic'];

let dir = '';
let started: QemuProcess[] = [];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'launch,test-'));
});
afterEach(async () => {
  for (const qemu of started) await qemu.terminate(2000);
  started = [];
  rmSync(dir, { recursive: true });
});

function plan(argv: readonly string[]): LaunchPlan {
  return planLaunch(argv, {
    qmpSocket: join(dir, 'qmp'),
    logFile: join(dir, '000001'),
    traceEvents: ['memory_region_ops_*', 'pci_update_mappings_add'],
    interrupts: true,
  });
}

async function launch(made: LaunchPlan): Promise<QemuProcess> {
  const qemu = await launchQemu(made, { stderrFile: join(dir, 'stderr') });
  started.push(qemu);
  return qemu;
}

async function connect(): Promise<QmpClient> {
  return QmpClient.connect(`unix:${join(dir, 'qmp')}`);
}

async function ready(qemu: QemuProcess): Promise<QmpClient> {
  await qemu.orExit(until('QEMU listens', () => isListening(join(dir, 'qmp'))));
  return qemu.orExit(connect());
}

function log(): string {
  return readFileSync(join(dir, '000001'), 'utf8');
}

async function launchError(argv: readonly string[]): Promise<MmioError> {
  try {
    const qemu = await launch(plan(argv));
    await qemu.orExit(until('never', () => false));
  } catch (error) {
    if (error instanceof MmioError) return error;
    throw error;
  }
  throw new Error('QEMU ran');
}

describe('the command line that we make', () => {
  it('is one that QEMU takes, stops before the first access and logs into our file with times', async () => {
    const theirLog = join(dir, 'theirs.log');
    const made = plan([
      ...QUIET,
      '-D',
      theirLog,
      '-trace',
      'pci_cfg_write',
      '-msg',
      'timestamp=off,guest-name=on',
    ]);
    const qemu = await launch(made);
    await using qmp = await ready(qemu);
    expect(await qmp.execute('query-status')).toMatchObject({ running: false });
    // Devices set themselves up (cpu -1); the guest has not run.
    expect(log()).not.toContain(' cpu 0 ');

    await qmp.execute('cont');
    await until('it is written', () => log().includes('pci_update_mappings_add e1000'));
    expect(log()).toMatch(/^\d+@\d+\.\d{6}:memory_region_ops_write cpu 0 /m);
    expect(log()).toMatch(/^\d+@\d+\.\d{6}:pci_cfg_write /m);
    expect(existsSync(theirLog)).toBe(false);
  });

  it.each([[['-nographic']], [['-nographic', '-serial', 'null']], [[]]])(
    'leaves the monitors and ports that QEMU gives by default: %j',
    async (args) => {
      const argv = [...QEMU, ...(args.length === 0 ? ['-vnc', 'none'] : args)];
      // Asked of QEMU alone, through a monitor from a file, which takes no default away.
      const config = join(dir, 'config');
      writeFileSync(
        config,
        `[chardev "own"]\nbackend = "socket"\npath = "${join(dir, 'own')}"\nserver = "on"\nwait = "off"\n` +
          `[mon "m"]\nchardev = "own"\nmode = "control"\n`,
      );
      const made = plan(argv);
      const alone = await launch({ ...made, argv: [...argv, '-S', '-readconfig', config] });
      await alone.orExit(until('QEMU listens', () => isListening(join(dir, 'own'))));
      const expected = await chardevs(`unix:${join(dir, 'own')}`);
      await alone.terminate(2000);

      const qemu = await launch(made);
      await (await ready(qemu)).close();
      expect(await chardevs(`unix:${join(dir, 'qmp')}`)).toEqual(expected);
      expect(expected).not.toEqual([]);
    },
  );

  it('works in a sandbox, the next segment included', async () => {
    const sandbox = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
    const qemu = await launch(plan([...QUIET, '-sandbox', sandbox]));
    await using qmp = await ready(qemu);
    expect(await qmp.hmp(`logfile "${join(dir, '000002')}"`)).toBe('');
    await qmp.execute('cont');
    await until('it is written', () =>
      readFileSync(join(dir, '000002'), 'utf8').includes('memory_region_ops_'),
    );
  });

  it('can `cont` a machine that waits for a migration', async () => {
    const qemu = await launch(plan([...QUIET, '-incoming', 'defer']));
    await using qmp = await ready(qemu);
    await qmp.execute('cont');
    expect(await qmp.execute('query-status')).toMatchObject({ status: 'inmigrate' });
  });
});

describe('the process', () => {
  it('is found from the thread of a vCPU, and told from another with its number', async () => {
    const made = plan(QUIET);
    const qemu = await launch(made);
    await using qmp = await ready(qemu);
    const cpus = await qmp.execute<{ 'thread-id': number }[]>('query-cpus-fast');
    const owner = processOfThread(cpus[0]?.['thread-id'] ?? -1);
    expect(owner).toEqual({ pid: qemu.pid, uid: process.geteuid?.() });
    expect(cmdlineOf(qemu.pid)).toEqual(made.argv);
    expect(openFilesOf(qemu.pid)).toContain(join(dir, '000001'));

    const began = startTimeOf(qemu.pid) ?? -1;
    expect(isAlive(qemu.pid, began)).toBe(true);
    expect(isAlive(qemu.pid, began - 1)).toBe(false);
    qemu.killNow();
    expect(await qemu.exited).toEqual({ code: null, signal: 'SIGKILL' });
    expect(isAlive(qemu.pid, began)).toBe(false);
    expect(openFilesOf(qemu.pid)).toBeUndefined();
  });

  it('has a session of its own, unless it needs the terminal', async () => {
    const alone = await launch(plan(QUIET));
    expect(groupOf(alone.pid)).toBe(alone.pid);
    await alone.terminate(2000);
    const shared = await launch({ ...plan(QUIET), usesStdio: true });
    expect(groupOf(shared.pid)).toBe(groupOf(process.pid));
    await shared.terminate(2000);
    await expect(shared.exited).resolves.toBeDefined();
  });

  it('ends at SIGTERM, and says who ended it', async () => {
    const qemu = await launch(plan(QUIET));
    await (await ready(qemu)).close();
    await qemu.terminate(5000);
    expect(await qemu.exited).toEqual({ code: 0, signal: null });
    expect(await qemu.lastWords()).toContain('terminating on signal 15');
    await qemu.terminate(5000);
  });

  it('is killed with all that it started when it does not end in time', async () => {
    const pids = join(dir, 'pids');
    const stubborn = `trap '' TERM; sleep 600 & echo $$ $! > '${pids}.new'; mv '${pids}.new' '${pids}'; wait; wait`;
    const qemu = await launch({ ...plan(QUIET), argv: ['sh', '-c', stubborn] });
    await until('it has started', () => existsSync(pids));
    const [shell = -1, sleep = -1] = readFileSync(pids, 'utf8').trim().split(' ').map(Number);
    const began = startTimeOf(sleep) ?? -1;
    expect(isAlive(sleep, began)).toBe(true);
    await qemu.terminate(200);
    expect(shell).toBe(qemu.pid);
    expect(await qemu.exited).toMatchObject({ signal: 'SIGKILL' });
    await until('it is gone', () => !isAlive(sleep, began));
  });
});

describe('a launch that fails', () => {
  it('tells of a program that is not there', async () => {
    const error = await launchError(['qemu-system-nowhere']);
    expect(error).toMatchObject({
      code: 'not-found',
      hint: expect.stringContaining('qemu-system-x86'),
    });
  });

  it('tells of a program that cannot be run', async () => {
    writeFileSync(join(dir, 'qemu'), 'no program');
    expect(await launchError([join(dir, 'qemu')])).toMatchObject({
      code: 'refused',
      hint: expect.stringContaining('executable'),
    });
  });

  it.each([
    [['-device', 'vfio-pci,host=ff:1f.7'], 'no such host device', 'lspci'],
    [['-bogus'], '-bogus: invalid option', 'does not know'],
    [['-drive', 'file=/nowhere.img'], "Could not open '/nowhere.img'", 'path'],
  ])("gives exit code, command and QEMU's own words: %j", async (args, words, hint) => {
    const error = await launchError([...QUIET, ...args]);
    expect(error.code).toBe('refused');
    expect(error.message).toBe('QEMU ended with exit code 1');
    expect(error.evidence).toContain(words);
    expect(error.evidence).toContain('command: qemu-system-x86_64 -machine pc');
    expect(error.hint).toContain(hint);
  });

  it('tells of a spool that QEMU cannot write', async () => {
    const made = plan(QUIET);
    const argv = made.argv.map((word) => (word === join(dir, '000001') ? '/nowhere/000001' : word));
    const qemu = await launch({ ...made, argv });
    const failure = qemu.orExit(until('never', () => false));
    await expect(failure).rejects.toMatchObject({ hint: expect.stringContaining('--spool') });
  });
});

function groupOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]);
}

/** Labels and kinds of all character devices but ours. */
async function chardevs(address: string): Promise<string[]> {
  await using qmp = await QmpClient.connect(address);
  const list = await qmp.execute<{ label: string; filename: string }[]>('query-chardev');
  return list
    .filter(({ label, filename }) => label !== 'own' && !filename.includes(join(dir, 'qmp')))
    .map(({ label, filename }) => `${label} ${filename}`)
    .toSorted();
}
