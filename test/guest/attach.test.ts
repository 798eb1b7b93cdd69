import { setTimeout as sleep } from 'node:timers/promises';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { QmpClient } from '../../src/qmp/client.ts';
import {
  Bench,
  countsIn,
  countsInLog,
  faultsIn,
  longestStallSec,
  openFiles,
  stateOf,
  steadyHammer,
  type Guest,
  type Run,
} from '../support/attach.ts';
import { HAMMER_DONE, hammerGuest } from '../support/guests.ts';
import { SYSTEM_QEMU, qemuVersions, runQemu } from '../support/qemu.ts';
import { words } from '../support/scripts.ts';
import { until } from '../support/soon.ts';

let bench: Bench;

beforeEach(async () => {
  bench = await Bench.open();
});

afterEach(async () => {
  await bench.close();
});

/** What `mmiobridge status --json` says of the only recording. */
async function status(): Promise<{ writes: number; qemuPid: number; marks: number }> {
  const [only] = JSON.parse(await bench.answer('status', '--json')) as {
    status: { counters: { writes: number }; qemuPid: number; marks: number };
  }[];
  if (only === undefined) throw new Error('status knows of no recording');
  const { counters, qemuPid, marks } = only.status;
  return { writes: counters.writes, qemuPid, marks };
}

async function untilCounted(writes: number): Promise<void> {
  await until(`${writes} writes are recorded`, async () => (await status()).writes >= writes);
}

/** Fails with what the program said. */
async function expectStatus(run: Run, wanted: number): Promise<void> {
  const code = await run.code();
  if (code !== wanted) throw new Error(`ended with ${code}, not ${wanted}: ${run.stderr}`);
}

async function interrupt(run: Run): Promise<void> {
  run.child.kill('SIGINT');
  await expectStatus(run, 130);
}

/** Records for a while with the guest's counter running, and checks all that a user relies on. */
async function recordOnce(guest: Guest, name: string): Promise<void> {
  const before = await stateOf(guest);
  const attach = ['--qmp', guest.socket, '--device', 'dut', '-o', bench.path(name)];
  const run = await bench.record(...attach);
  await untilCounted(200);
  await bench.answer('mark', 'half', 'time');
  const now = await status();
  expect(now.qemuPid).toBe(guest.pid);
  await untilCounted(now.writes + 200);
  await interrupt(run);

  const text = bench.read(name);
  const counts = countsIn(text);
  expect(counts.length).toBeGreaterThan(400);
  expect(faultsIn(counts)).toEqual([]);
  expect(longestStallSec(counts)).toBeLessThan(1);
  expect(text).toMatch(/^MARK \d+\.\d+ half time$/m);
  expect(text).toMatch(/mmiobridge: end complete, /);
  expect(run.stderr).toContain('loss      none');

  expect(await stateOf(guest)).toEqual(before);
  expect(before).toMatchObject({ status: { running: true } });
  expect(guest.events).not.toContain('STOP');
  expect(bench.sessions()).toEqual([]);
  expect(openFiles(guest.pid).filter((path) => path.startsWith(bench.path('run')))).toEqual([]);
}

describe('attaching to a QEMU that runs', () => {
  test('and being killed while it begins: resume puts it back as it was', async () => {
    const guest = await bench.guest(await steadyHammer());
    const before = await stateOf(guest);
    const record = ['record', '--qmp', guest.socket, '--device', 'dut', '-o', 'x.mmiotrace'];
    const isKnown = (id: string) => existsSync(bench.path('run', id, 'session.json'));
    for (const afterMs of [0, 5, 10, 15, 20, 30, 50, 100]) {
      const run = bench.cli(...record);
      await until('it is known', () => bench.sessions().some(isKnown));
      await sleep(afterMs);
      await run.kill();
      const resumed = bench.cli('resume', bench.sessions().find(isKnown) ?? run.stderr);
      await until(
        'it ends, or goes on',
        () => !resumed.isRunning || resumed.stderr.startsWith('resu'),
      );
      resumed.child.kill('SIGINT');
      const end = `after ${afterMs} ms: ${await resumed.code()} ${resumed.stderr}`;
      expect(end).toMatch(/ms: (1 .*QEMU is as it was\n.*record again|130 resuming)/s);
      expect(openFiles(guest.pid).filter((path) => path.startsWith(bench.path('run')))).toEqual([]);
    }
    expect(await stateOf(guest)).toEqual(before);
  });

  test('three times, and each time it is as it was before; its own log in a file goes on', async () => {
    const own = words('-D own.log -trace memory_region_ops_write');
    const guest = await bench.guest(await steadyHammer(...own));
    await until('QEMU logs', () => countsInLog(bench.read('own.log')).length > 100);
    for (const name of ['1.mmiotrace', '2.mmiotrace', '3.mmiotrace']) await recordOnce(guest, name);

    const last = countsIn(bench.read('3.mmiotrace')).at(-1)?.value ?? NaN;
    await until('the log goes on', () =>
      countsInLog(bench.read('own.log')).some(({ value }) => value > last + 100),
    );
    expect(openFiles(guest.pid)).toContain(bench.path('own.log'));
    // A line of the recorder's may come after one of QEMU's that is younger: all are there, once.
    const values = countsInLog(bench.read('own.log')).map(({ value }) => value);
    const sorted = values.toSorted((a, b) => a - b);
    expect(sorted).toEqual(sorted.map((_, index) => index));
  });

  test('one that would empty its log: what was in it is put aside, and nothing is missing', async () => {
    const qemu = qemuVersions().find(({ version }) => version === '10.0')?.path ?? '';
    const argv = await hammerGuest({ iterations: 0, pauseTurns: 40_000, qemu });
    const own = words('-D own.log -trace memory_region_ops_write');
    const guest = await bench.guest([...argv, ...own]);
    await until('QEMU logs', () => countsInLog(bench.read('own.log')).length > 100);
    await recordOnce(guest, '1.mmiotrace');
    const last = countsIn(bench.read('1.mmiotrace')).at(-1)?.value ?? NaN;
    await until('the log goes on', () =>
      countsInLog(bench.read('own.log')).some(({ value }) => value > last + 100),
    );
    const both = bench.read('own.log.before-mmiobridge') + bench.read('own.log');
    const values = countsInLog(both).map(({ value }) => value);
    expect(values).toEqual(values.map((_, index) => index));
  });

  test('three times, and each time it is as it was before; its own log on a pipe goes on', async () => {
    const stderr = bench.pipeInto('stderr.log');
    const argv = await steadyHammer(...words('-trace memory_region_ops_write'));
    const guest = await bench.guest(argv, { stderr });
    const written = () => countsInLog(bench.read('stderr.log')).map(({ value }) => value);
    await until('QEMU logs', () => written().length > 100);
    for (const name of ['1.mmiotrace', '2.mmiotrace', '3.mmiotrace']) await recordOnce(guest, name);
    const last = countsIn(bench.read('3.mmiotrace')).at(-1)?.value ?? NaN;
    await until('the log goes on', () => written().some((value) => value > last + 100));
    const sorted = written().toSorted((a, b) => a - b);
    expect(sorted).toEqual(sorted.map((_, index) => index));
  });

  test('its stderr is a socket, which cannot be opened again: the recorder prints its lines, and says so', async () => {
    const guest = await bench.guest(await steadyHammer(...words('-trace memory_region_ops_write')));
    await until('QEMU logs', () => countsInLog(guest.stderr).length > 100);
    const run = await bench.record(
      '--qmp',
      guest.socket,
      '--device',
      'dut',
      '-o',
      bench.path('t.mmiotrace'),
    );
    await untilCounted(200);
    await interrupt(run);
    expect(run.stderr).toContain(
      "QEMU logs nowhere now: its log could not go back to QEMU's standard error",
    );
    const values = countsInLog(guest.stderr + run.stderr).map(({ value }) => value);
    const sorted = values.toSorted((a, b) => a - b);
    expect(sorted).toEqual(sorted.map((_, index) => index));
  });

  test('without message timestamps: times of the poll, and the log says so', async () => {
    const guest = await bench.guest(await steadyHammer(), { timestamps: false });
    const out = bench.path('poll.mmiotrace');
    const run = await bench.record('--qmp', guest.socket, '--device', 'dut', '-o', out);
    await untilCounted(500);
    const timesIn = (text: string) => new Set(countsIn(text).map(({ timeSec }) => timeSec)).size;
    await until('some polls have come', () => timesIn(bench.read('poll.mmiotrace')) > 10);
    await interrupt(run);
    const text = bench.read('poll.mmiotrace');
    const counts = countsIn(text);
    expect(faultsIn(counts)).toEqual([]);
    const times = counts.map(({ timeSec }) => timeSec);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    // Many accesses share the time of one poll, and the clock goes on.
    expect(new Set(times).size).toBeLessThan(times.length / 2);
    expect(new Set(times).size).toBeGreaterThan(5);
    expect(times.every((time) => time >= 0 && time < 60)).toBe(true);
    expect(text).toMatch(/mmiobridge: session .*, clock poll, /);
    expect(text).toMatch(/^MARK .* mmiobridge: coverage head note: .*times are those of the poll/m);
    expect(run.stderr).toMatch(/^note .*times are those of the poll/m);
  });
});

/** The words of a recording that did not begin, line by line. */
async function refusal(...args: readonly string[]): Promise<string[]> {
  const run = bench.cli('record', '-o', bench.path('none.mmiotrace'), ...args);
  await expectStatus(run, 1);
  expect(bench.sessions()).toEqual([]);
  return run.stderr.trimEnd().split('\n');
}

describe('a QEMU of another user', () => {
  test('writes into our spool, wherever our umask would close it', async () => {
    const guest = await bench.guest(await steadyHammer(), { user: 'nobody' });
    process.umask(0o077);
    try {
      await recordOnce(guest, 'other-user.mmiotrace');
      expect(statSync(`/proc/${guest.pid}`).uid).not.toBe(process.getuid?.());
    } finally {
      process.umask(0o022);
    }
  });

  test('may not write where --spool says: its own words, what to do, and it is as it was', async () => {
    const own = words('-D qemu/own.log -trace memory_region_ops_write');
    const guest = await bench.guest(await steadyHammer(...own), { user: 'nobody' });
    mkdirSync(bench.path('closed', 'spool'), { recursive: true, mode: 0o700 });
    const before = await stateOf(guest);
    const attach = ['--qmp', guest.socket, '--device', 'dut'];
    const refused = await refusal(...attach, '--spool', bench.path('closed', 'spool'));
    const [slow, what, evidence, hint, ...more] = refused;
    expect(slow).toMatch(/\/closed\/spool is no tmpfs: a guest that logs to a disk waits for it$/);
    expect(what).toMatch(
      /^mmiobridge: QEMU cannot write .*\/closed\/spool\/mmiobridge-.*\/000001$/,
    );
    expect(evidence).toMatch(/^ {2}.*Permission denied$/);
    expect(hint).toMatch(/^ {2}hint: .*name a directory where it may write with --spool DIR$/);
    expect(more).toEqual([]);
    expect(await stateOf(guest)).toEqual(before);
    expect(openFiles(guest.pid)).toContain(bench.path('qemu', 'own.log'));
    expect(readdirSync(bench.path('closed', 'spool'))).toEqual([]);
    const counts = () => countsInLog(bench.read('qemu/own.log'));
    const { length } = counts();
    await until('its log goes on', () => counts().length > length + 100);
    const values = counts().map(({ value }) => value);
    expect(values).toEqual(values.map((_, index) => index));
  });
});

describe('what cannot be attached to', () => {
  test('a socket that is not there', async () => {
    const [what, , hint] = await refusal('--qmp', bench.path('nowhere'));
    expect(what).toBe(`mmiobridge: there is no QMP socket ${bench.path('nowhere')}`);
    expect(hint).toContain('start QEMU with -qmp');
  });

  test('a socket that another program holds', async () => {
    const guest = await bench.guest(await steadyHammer());
    await using _other = await QmpClient.connect(guest.socket);
    const [what, evidence, hint] = await refusal('--qmp', guest.socket, '--device', 'dut');
    expect(what).toContain('no greeting from the QMP server');
    expect(evidence).toContain(guest.socket);
    expect(hint).toContain('another program may hold this socket');
  });

  test('a device that is not there, or none that is passed through: what there is', async () => {
    const guest = await bench.guest(await steadyHammer());
    const before = await stateOf(guest);
    const [what, ...list] = await refusal('--qmp', guest.socket, '--device', 'gpu');
    expect(what).toBe('mmiobridge: the VM has no device gpu');
    expect(list.join('\n')).toContain('edu 1234:11e8 at 00:04.0 (id dut)');
    expect(list.at(-1)).toContain('hint: --device takes');
    const [none, ...all] = await refusal('--qmp', guest.socket);
    expect(none).toBe('mmiobridge: the VM has no passed-through device');
    expect(all.join('\n')).toContain('edu 1234:11e8 at 00:04.0 (id dut)');
    expect(await stateOf(guest)).toEqual(before);
  });

  test('an output that cannot be written: QEMU is left alone', async () => {
    const own = words('-D own.log -trace memory_region_ops_write');
    const guest = await bench.guest(await steadyHammer(...own));
    const before = await stateOf(guest);
    const out = bench.path('no', 'such', 'folder.mmiotrace');
    const [what] = await refusal('--qmp', guest.socket, '--device', 'dut', '-o', out);
    expect(what).toBe(`mmiobridge: cannot write ${out}`);
    expect(await stateOf(guest)).toEqual(before);
    const values = countsInLog(bench.read('own.log')).map(({ value }) => value);
    expect(values).toEqual(values.map((_, index) => index));
  });
});

describe('an end that nobody asked for', () => {
  test('the VM ends: the log is whole', async () => {
    const argv = await hammerGuest({ iterations: 20_000, pauseTurns: 40_000 });
    const guest = await bench.guest(argv);
    const out = bench.path('end.mmiotrace');
    const run = await bench.record('--qmp', guest.socket, '--device', 'dut', '-o', out);
    expect(await guest.code()).toBe(HAMMER_DONE);
    await expectStatus(run, 0);
    const counts = countsIn(bench.read('end.mmiotrace'));
    expect(faultsIn(counts)).toEqual([]);
    expect(counts.at(-1)).toMatchObject({ write: false, value: 19_999 });
    expect(run.stderr).toContain('loss      none');
    expect(bench.sessions()).toEqual([]);
  });

  test('the VM is killed: the log is whole up to its last line', async () => {
    const guest = await bench.guest(await steadyHammer());
    const out = bench.path('killed.mmiotrace');
    const run = await bench.record('--qmp', guest.socket, '--device', 'dut', '-o', out);
    await untilCounted(200);
    await guest.kill();
    await expectStatus(run, 0);
    const text = bench.read('killed.mmiotrace');
    expect(faultsIn(countsIn(text))).toEqual([]);
    expect(text).toMatch(/mmiobridge: end complete, /);
  });

  test('the QMP connection is lost: it records on, and takes itself off when QMP answers again', async () => {
    const guest = await bench.guest(await steadyHammer());
    const before = await stateOf(guest);
    const proxy = await bench.proxy(guest.socket);
    const out = bench.path('lost.mmiotrace');
    const run = await bench.record('--qmp', proxy.path, '--device', 'dut', '-o', out);
    await untilCounted(200);
    await proxy.cut();
    await until('it says so', () => run.stderr.includes('the QMP connection was lost'));
    const { writes } = await status();
    await untilCounted(writes + 200);

    run.child.kill('SIGINT');
    await until('it says why it goes on', () =>
      run.stderr.includes('QEMU cannot be told to end the recording, which goes on until it can'),
    );
    await untilCounted(writes + 400);
    await proxy.open();
    await expectStatus(run, 130);
    const counts = countsIn(bench.read('lost.mmiotrace'));
    expect(counts.length).toBeGreaterThan(800);
    expect(faultsIn(counts)).toEqual([]);
    expect(await stateOf(guest)).toEqual(before);
    expect(bench.sessions()).toEqual([]);
  });
});

describe('a QMP connection that comes back', () => {
  test('is taken up again when the next segment is due, and nothing is missing', async () => {
    const guest = await bench.guest(await steadyHammer());
    const before = await stateOf(guest);
    const proxy = await bench.proxy(guest.socket);
    const out = bench.path('back.mmiotrace');
    const options = ['--qmp', proxy.path, '--device', 'dut', '--spool-limit', '4M', '-o', out];
    const run = await bench.record(...options);
    await proxy.cut();
    await until('it says so', () => run.stderr.includes('the QMP connection was lost'));
    await proxy.open();
    await until('it is back', () => run.stderr.includes('the QMP connection is back'));
    await guest.watcher.execute('stop');
    await guest.watcher.execute('cont');
    const { writes } = await status();
    await untilCounted(writes + 200);
    await interrupt(run);
    const text = bench.read('back.mmiotrace');
    expect(faultsIn(countsIn(text))).toEqual([]);
    expect(text).toMatch(/^MARK \S+ mmiobridge: vm-state paused$/m);
    expect(await stateOf(guest)).toEqual(before);
  });

  test('after a second Ctrl-C left the recording behind: resume takes it off QEMU', async () => {
    const guest = await bench.guest(await steadyHammer());
    const before = await stateOf(guest);
    const proxy = await bench.proxy(guest.socket);
    const out = bench.path('left.mmiotrace');
    const run = await bench.record('--qmp', proxy.path, '--device', 'dut', '-o', out);
    await proxy.cut();
    run.child.kill('SIGINT');
    await until('it says why it goes on', () => run.stderr.includes('QEMU cannot be told to end'));
    await interrupt(run);
    const [session = 'none'] = bench.sessions();
    expect(run.stderr).toContain(`stopped at once: resume it with mmiobridge resume ${session}`);

    await proxy.open();
    const resumed = bench.cli('resume', session);
    await until('it goes on', () => resumed.stderr.includes('resuming'));
    const { writes } = await status();
    await untilCounted(writes + 200);
    await interrupt(resumed);
    expect(faultsIn(countsIn(bench.read('left.mmiotrace')))).toEqual([]);
    expect(await stateOf(guest)).toEqual(before);
    expect(bench.sessions()).toEqual([]);
  });
});

describe('started by the recorder', () => {
  test('a driver behind a root port: its bus is the one that firmware gave it', async () => {
    const out = bench.path('port.mmiotrace');
    const run = await bench.record(
      ...words('--device dut --duration 8 -o'),
      out,
      '--',
      SYSTEM_QEMU,
      ...words('-machine q35 -accel tcg -m 64 -nodefaults -display none'),
      ...words('-device pcie-root-port,id=rp,chassis=1 -netdev user,id=n'),
      ...words('-device e1000e,bus=rp,id=dut,netdev=n'),
    );
    await expectStatus(run, 0);
    const text = bench.read('port.mmiotrace');
    const devices = text.split('\n').filter((line) => /^PCIDEV .*808610d3/.test(line));
    expect(devices.length).toBeGreaterThan(0);
    expect(devices.map((line) => line.split(' ')[1])).toEqual(devices.map(() => '0100'));
    expect(text.match(/^[RW] 4 /gm)?.length).toBeGreaterThan(100);
    expect(run.stderr).toContain('device    dut: e1000e, 8086:10d3 at 01:00.0');
  });

  test("the user's own log gets what it would have got, and the recording is complete", async () => {
    const guest = await hammerGuest({ iterations: 2000 });
    // cpu_reset prints registers: lines of any shape.
    const own = words('-trace pci_* -d guest_errors,cpu_reset -D');
    await runQemu([...guest, ...own, bench.path('alone.log')]);
    const out = bench.path('own.mmiotrace');
    const command = [...guest, ...own, bench.path('mine.log')];
    const run = bench.cli('record', '--device', 'dut', '-o', out, '--', ...command);
    await run.code();
    expect(run.stderr).toContain('loss      none');

    const alone = withoutStamps(bench.read('alone.log'));
    expect(alone).toContainEqual(expect.stringMatching(/^pci_update_mappings_add edu /));
    expect(alone).toContainEqual(expect.stringMatching(/^EAX=/));
    expect(withoutStamps(bench.read('mine.log'))).toEqual(alone);
    const counts = countsIn(bench.read('own.mmiotrace'));
    expect(faultsIn(counts)).toEqual([]);
    expect(counts.length).toBe(2 * 2000);
  });
});

function withoutStamps(log: string): string[] {
  return log.split('\n').map((line) => line.replace(/^\d+@[\d.]+:/, ''));
}
