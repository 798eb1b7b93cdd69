/**
 * What is left when something dies: the recorder, QEMU, the terminal. The guest writes a counter and
 * reads its complement, so a log shows whether every access is there, once, in order.
 */
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Bench, MAIN, counted, toldAtEnd, type Running } from '../support/death.ts';
import { HAMMER_DONE, hammerGuest } from '../support/guests.ts';
import { SYSTEM_QEMU } from '../support/qemu.ts';
import { until } from '../support/soon.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
});

const KINDS = ['x.mmiotrace', 'x.mmiocap', 'x.ndjson', 'x.txt.gz'];
const ALL = KINDS.flatMap((name) => ['-o', name]);
const TEXT = ['-o', 'x.mmiotrace'];
/** Slow enough that a test can act in the middle, and the log stays small: about 15,000 pairs a second. */
const SLOW = 40_000;
const endless = () => hammerGuest({ iterations: 0, pauseTurns: SLOW });

/** `record`, without waiting for it to have begun. */
async function startEndless(): Promise<Running> {
  return bench.start(['record', '--device', 'dut', ...TEXT, '--', ...(await endless())]);
}

async function killRecorder(recorder: Running): Promise<void> {
  recorder.kill('SIGKILL');
  expect(await recorder.exited).toEqual({ status: null, signal: 'SIGKILL' });
}

/** The text is complete, and so says its end. */
function expectComplete(text: string): number {
  const { pairs, gaps } = counted(text);
  expect(gaps).toEqual([]);
  expect(text).not.toMatch(/lost/i);
  const { reads, writes, how } = toldAtEnd(text);
  expect(how).toBe('complete');
  expect(writes).toBe(pairs);
  expect([pairs, pairs - 1]).toContain(reads);
  return pairs;
}

/**
 * The capture, the JSON lines and the compressed text say what the text says.
 * @param cut QEMU was killed within a line, which is told as damage and is all of it.
 */
async function expectAgreeing(cut = false): Promise<void> {
  const text = bench.read('x.mmiotrace');
  const converted = await bench.run('convert', 'x.mmiocap', '-o', 'again.mmiotrace');
  expect(converted).toMatchObject({ status: cut ? 3 : 0 });
  expect(converted.stderr.includes('1 damaged place, stepped over:')).toBe(cut);
  expect(converted.stderr.includes('cut off in the middle of the line')).toBe(cut);
  expect(bench.read('again.mmiotrace') === text).toBe(true);
  expect(gunzipSync(readFileSync(bench.path('x.txt.gz'))).toString('latin1') === text).toBe(true);
  await bench.run('convert', 'x.mmiocap', '-o', 'again.ndjson');
  // The header's names may come in any order.
  const [header, body] = jsonLines('x.ndjson');
  const [headerAgain, bodyAgain] = jsonLines('again.ndjson');
  expect(headerAgain).toEqual(header);
  expect(bodyAgain === body).toBe(true);
}

function jsonLines(name: string): [unknown, string] {
  const text = bench.read(name);
  const at = text.indexOf('\n');
  return [JSON.parse(text.slice(0, at)), text.slice(at)];
}

/** Nothing of the recording is left but its outputs. */
async function expectNothingLeft(): Promise<void> {
  await until('QEMU is gone', () => bench.qemus().length === 0);
  expect(bench.sessions()).toEqual([]);
}

/** Ends whatever a recorder has left, as `status` says. */
async function clearedAway(): Promise<string> {
  const [entry] = await bench.status();
  if (entry === undefined) return bench.qemus().length === 0 ? 'no QEMU' : 'a QEMU';
  if (entry.state !== 'interrupted') return entry.state;
  const resumed = bench.start(['resume', entry.session]);
  await until('it ends, or goes on', () => /^resuming |record again/m.test(resumed.stderr));
  if (resumed.stderr.includes('resuming')) resumed.kill('SIGINT');
  const { status } = await resumed.exited;
  return `${status} ${resumed.stderr}`;
}

test('an output that somebody takes away meanwhile is not said to be written', async () => {
  const recorder = await bench.record(ALL, await endless());
  await bench.grown('x.mmiotrace', 100_000);
  rmSync(bench.path('x.mmiotrace'));
  recorder.kill('SIGINT');
  expect(await recorder.exited).toMatchObject({ status: 1 });
  expect(recorder.stderr).toMatch(
    /^REMOVED {3}.*\/x\.mmiotrace: somebody took it away meanwhile$/m,
  );
  expect(recorder.stderr).toMatch(/^written {3}.*\/x\.mmiocap$/m);
  expect(recorder.stderr).not.toMatch(/^written {3}.*\/x\.mmiotrace$/m);
});

describe('a recorder that is killed', () => {
  test('is resumed: every access once, in all outputs', async () => {
    const pairs = 300_000;
    const guest = await hammerGuest({ iterations: pairs, pauseTurns: 500 });
    const recorder = await bench.record(ALL, guest);
    await bench.grown('x.mmiotrace', 4_000_000);
    await killRecorder(recorder);
    const id = bench.session();
    expect((await bench.run('status')).stdout).toContain(`${id}  interrupted: mmiobridge resume`);

    const second = await bench.resume(id);
    await bench.grown('x.mmiotrace', 12_000_000);
    await killRecorder(second);

    const third = await bench.run('resume', id);
    expect(third.status, third.stderr).toBe(0);
    expect(expectComplete(bench.read('x.mmiotrace'))).toBe(pairs);
    expect(toldAtEnd(bench.read('x.mmiotrace')).reads).toBe(pairs);
    expect(third.stderr).toContain(`accesses  600,000 (300,000 reads, 300,000 writes)`);
    await expectAgreeing();
    await expectNothingLeft();
  });

  test('loses nothing at its very beginning', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await killRecorder(recorder);
    const resumed = await bench.resume(bench.session());
    await bench.grown('x.mmiotrace', 500_000);
    resumed.kill('SIGINT');
    expect(await resumed.exited).toMatchObject({ status: 130 });
    expect(expectComplete(bench.read('x.mmiotrace'))).toBeGreaterThan(5000);
    await expectNothingLeft();
  });

  test('loses nothing when QEMU is gone, too', async () => {
    const recorder = await bench.record(ALL, await endless());
    await bench.grown('x.mmiotrace', 500_000);
    await killRecorder(recorder);
    const atDeath = bench.read('x.mmiotrace').length;
    const spooled = bench.spoolBytes();
    // A line of the log is longer than the one that is written of it.
    await until('QEMU has gone on', () => bench.spoolBytes() > spooled + 1_000_000);
    const qemu = bench.qemu();
    // One that stands still is not killed in the middle of a line.
    process.kill(qemu, 'SIGSTOP');
    await sleep(50);
    process.kill(qemu, 'SIGKILL');
    await until('QEMU is gone', () => bench.qemus().length === 0);
    const resumed = await bench.run('resume', bench.session());
    expect(resumed.stderr).toContain('QEMU has ended: writing what it left');
    expectComplete(bench.read('x.mmiotrace'));
    expect(bench.read('x.mmiotrace').length).toBeGreaterThan(atDeath + 100_000);
    await expectAgreeing();
    await expectNothingLeft();
  });

  test('loses nothing when QEMU is just ending, and answers no more', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 500_000);
    await killRecorder(recorder);
    const [id, qemu] = [bench.session(), bench.qemu()];
    process.kill(qemu, 'SIGSTOP');
    rmSync(join(bench.runDir, id, 'qmp.sock'));
    const resumed = bench.start(['resume', id]);
    await sleep(1000);
    process.kill(qemu, 'SIGKILL');
    await resumed.exited;
    expect(resumed.stderr).toContain('QEMU has ended: writing what it left');
    expectComplete(bench.read('x.mmiotrace'));
    await expectNothingLeft();
  });

  test('while it begins leaves nothing that cannot be seen and cleared away', async () => {
    for (const afterMs of [120, 180, 220, 260, 300, 350, 400, 500]) {
      const recorder = await startEndless();
      await sleep(afterMs);
      await killRecorder(recorder);
      const became = await clearedAway();
      expect(became, `after ${afterMs} ms`).toMatch(
        /^(no QEMU|1 .*nothing is left of it: record again|130 resuming)/s,
      );
    }
    // A folder in which nothing had been written yet goes with the next recording.
    await bench.run('record', ...TEXT, '--', 'no-such-qemu');
    await expectNothingLeft();
  });

  test('or stopped: status says so, and a mark that is told to have failed is not there', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 100_000);
    recorder.kill('SIGSTOP');
    const [status, mark] = await Promise.all([bench.run('status'), bench.run('mark', 'too late')]);
    expect(status).toMatchObject({ status: 0 });
    expect(status.stdout).toContain('not answering: the recording does not answer');
    expect(mark).toMatchObject({ status: 1 });
    recorder.kill('SIGCONT');
    expect(await bench.run('mark', 'in time')).toMatchObject({ status: 0 });
    recorder.kill('SIGINT');
    expect(await recorder.exited).toMatchObject({ status: 130 });
    const text = bench.read('x.mmiotrace');
    expect(text).toMatch(/^MARK \S+ in time$/m);
    expect(text).not.toContain('too late');
    expectComplete(text);
  });

  test('keeps the marks that were given shortly before, once, and where they were', async () => {
    const recorder = await bench.record(ALL, await endless());
    await bench.grown('x.mmiotrace', 300_000);
    const marks = ['first', 'second', 'third'];
    for (const mark of marks) {
      const marked = await bench.run('mark', mark);
      expect(marked).toMatchObject({ status: 0 });
    }
    await killRecorder(recorder);
    const resumed = await bench.resume(bench.session());
    await bench.run('mark', 'fourth');
    resumed.kill('SIGTERM');
    expect(await resumed.exited).toMatchObject({ status: 130 });
    const text = bench.read('x.mmiotrace');
    expectComplete(text);
    const given = [...text.matchAll(/^MARK ([\d.]+) (first|second|third|fourth)$/gm)];
    expect(given.map((mark) => mark[2])).toEqual([...marks, 'fourth']);
    for (const mark of given) {
      // The access before it was made before, the one behind it after, as far as a busy host goes:
      // QEMU may be put aside between taking the time of an access and writing it down.
      const around = [
        text.slice(0, mark.index).match(/^[RW] 4 ([\d.]+)[^\n]*\n$/m),
        /^[RW] 4 ([\d.]+)/m.exec(text.slice(mark.index)),
      ].map((access) => Number(access?.[1]) - Number(mark[1]));
      expect(around[0]).toBeLessThan(1);
      expect(around[1]).toBeGreaterThan(-1);
      expect(around[1]).toBeLessThan(1);
    }
    await expectAgreeing();
  });

  test('can only be resumed when it is gone, and by its name', async () => {
    const recorder = await bench.record(TEXT, await endless());
    const id = bench.session();
    const refused = await bench.run('resume', id);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toBe(
      `mmiobridge: ${id} is being recorded\n  process ${recorder.pid} runs\n  hint: \`mmiobridge status\` shows it\n`,
    );
    const unknown = await bench.run('resume', 'nobody');
    expect(unknown.status).toBe(1);
    expect(unknown.stderr).toContain('mmiobridge: no recording is called nobody\n');
    expect(unknown.stderr).toContain(`hint: there is: ${id}`);
    expect((await bench.status()).map(({ state }) => state)).toEqual(['recording']);
  });

  test('is not gone on with in a file that is not the one it wrote', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 1_000_000);
    await killRecorder(recorder);
    const whole = readFileSync(bench.path('x.mmiotrace'));
    // Shorter than at the very first checkpoint, which may be the only one yet.
    truncateSync(bench.path('x.mmiotrace'), 10);
    const refused = await bench.run('resume', bench.session());
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('x.mmiotrace is shorter than what was written to it');
    expect(refused.stderr).toMatch(/10 bytes, of which \d+ were known to be written/);
    expect(bench.read('x.mmiotrace')).toHaveLength(10);

    // With the right file in its place it goes on all the same.
    writeFileSync(bench.path('x.mmiotrace'), whole);
    const resumed = await bench.resume(bench.session());
    resumed.kill('SIGINT');
    expect(await resumed.exited).toMatchObject({ status: 130 });
    expectComplete(bench.read('x.mmiotrace'));
  });
});

test('an output that fails for good pauses the guest; resume goes on when it is mended', async () => {
  // No file may be longer than 4 MiB: the text comes to 5 MB. QEMU has the limit too, so it must
  // stay well above the length of a spool segment, which on a busy machine grows past the 1 MiB.
  const guest = (await hammerGuest({ iterations: 60_000, pauseTurns: 5000 })).join(' ');
  const record = `record --device dut -o x.mmiotrace --spool-limit 1M -- ${guest.replace(/-append (.*)$/, "-append '$1'")}`;
  const limited = `trap '' XFSZ; ulimit -f 4096; exec ${process.execPath} ${MAIN} ${record}`;
  const recorder = bench.start(['-c', limited], 'bash');
  expect(await recorder.exited).toMatchObject({ status: 1 });
  expect(recorder.stderr).toContain('x.mmiotrace\n  EFBIG: file too large, write\n');
  const id = bench.session();
  expect(recorder.stderr).toContain(`nothing is lost: mend it, then mmiobridge resume ${id}`);
  expect(bench.qemus()).toHaveLength(1);

  const back = await bench.run('resume', id);
  expect(back.status, back.stderr).toBe(0);
  expect(expectComplete(bench.read('x.mmiotrace'))).toBe(60_000);
  await expectNothingLeft();
});

test('a QEMU that is killed leaves a log that is whole to its last line', async () => {
  const recorder = await bench.record(ALL, await hammerGuest({ iterations: 0 }));
  await bench.grown('x.mmiotrace', 3_000_000);
  process.kill(bench.qemu(), 'SIGKILL');
  expect(await recorder.exited).toMatchObject({ status: 1 });
  expect(recorder.stderr).toContain('QEMU was ended by SIGKILL; the log is whole');
  expect(counted(bench.read('x.mmiotrace')).gaps).toEqual([]);
  toldAtEnd(bench.read('x.mmiotrace'));
  // The kernel ends a write at a page's end for a process that is to die, now and then in a line.
  await expectAgreeing(recorder.stderr.includes('lines of the log could not be read'));
  await expectNothingLeft();
});

describe('a recording that is ended', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('by %s is whole', async (signal) => {
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 200_000);
    recorder.kill(signal);
    expect(await recorder.exited).toEqual({ status: 130, signal: null });
    expectComplete(bench.read('x.mmiotrace'));
    await expectNothingLeft();
  });

  test('by Ctrl-C before it has begun, is whole, and leaves no QEMU behind', async () => {
    const recorder = await startEndless();
    await until('QEMU is there', () => bench.qemus().length > 0);
    recorder.kill('SIGINT');
    const early = recorder.stderr;
    expect(await recorder.exited).toEqual({ status: 130, signal: null });
    expect(early).toBe('');
    expectComplete(bench.read('x.mmiotrace'));
    await expectNothingLeft();
  });

  test('by Ctrl-C twice is gone at once', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 200_000);
    // A QEMU that does not listen: only force helps.
    process.kill(bench.qemu(), 'SIGSTOP');
    recorder.kill('SIGINT');
    await recorder.says(/Ctrl-C again kills/);
    recorder.kill('SIGINT');
    expect(await recorder.exited).toEqual({ status: 130, signal: null });
    expect(recorder.stderr).toContain('killed');
    await expectNothingLeft();
  });

  test('by Ctrl-C twice, after a resume, takes QEMU along, too', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await killRecorder(recorder);
    const resumed = await bench.resume(bench.session());
    process.kill(bench.qemu(), 'SIGSTOP');
    resumed.kill('SIGINT');
    await resumed.says(/Ctrl-C again kills/);
    resumed.kill('SIGINT');
    expect(await resumed.exited).toEqual({ status: 130, signal: null });
    await expectNothingLeft();
  });

  test('by a terminal that is closed, which may say so twice, is whole', async () => {
    const recorder = await bench.record(TEXT, await endless());
    await bench.grown('x.mmiotrace', 200_000);
    // Nobody reads what it says any more.
    recorder.child.stderr?.destroy();
    recorder.kill('SIGHUP');
    await sleep(5);
    recorder.kill('SIGHUP');
    expect(await recorder.exited).toEqual({ status: 130, signal: null });
    expectComplete(bench.read('x.mmiotrace'));
    await expectNothingLeft();
  });

  test('by who reads it is ended without a fuss', async () => {
    const guest = (await endless()).join(' ').replace(/-append (.*)$/, "-append '$1'");
    const line = `${process.execPath} ${MAIN} record --device dut -o - -- ${guest} | head -5; exit \${PIPESTATUS[0]}`;
    const shell = bench.start(['-c', line], 'bash');
    expect(await shell.exited).toEqual({ status: 1, signal: null });
    expect(shell.stdout.split('\n')).toHaveLength(6);
    expect(shell.stderr).toContain(
      'mmiobridge: cannot write to standard output\n  the program that reads it has ended\n',
    );
    expect(shell.stderr).not.toMatch(/^\s+at |EPIPE/m);
    await expectNothingLeft();
  });
});

describe('at a terminal', () => {
  test('m, a text and Enter mark; q ends, with status 0', async () => {
    const guest = (await endless()).join(' ').replace(/-append (.*)$/, "-append '$1'");
    const line = `MMIOBRIDGE_RUN=${bench.runDir} ${process.execPath} ${MAIN} record --device dut -o x.mmiotrace -- ${guest}; echo $? > status`;
    const socket = bench.path('tmux');
    const tmux = (...args: string[]) => bench.start(['-S', socket, ...args], 'tmux').exited;
    await tmux(
      '-f',
      '/dev/null',
      'new-session',
      '-d',
      '-x',
      '150',
      '-y',
      '40',
      '-c',
      bench.dir,
      line,
    );
    try {
      await bench.grown('x.mmiotrace', 300_000);
      await tmux('send-keys', 'm');
      await tmux('send-keys', '-l', 'set a modez');
      await tmux('send-keys', 'BSpace', 'Enter');
      await until('the mark is there', () =>
        /^MARK [\d.]+ set a mode$/m.test(bench.read('x.mmiotrace')),
      );
      await tmux('send-keys', 'q');
      await until('it has ended', () => existsSync(bench.path('status')));
      await until('its status is there', () => bench.read('status') !== '');
    } finally {
      await tmux('kill-server');
    }
    expect(bench.read('status')).toBe('0\n');
    expectComplete(bench.read('x.mmiotrace'));
    await expectNothingLeft();
  });
});

describe('a QEMU that does not start', () => {
  test.each([
    ['a bad option', ['-nonsense'], 'invalid option'],
    ['a missing image', ['-drive', 'file=nowhere.img,format=raw'], 'nowhere.img'],
  ])('%s: its words, status 1, and what was there stays', async (_, bad, words) => {
    writeFileSync(bench.path('x.mmiotrace'), 'from yesterday\n');
    const args = ['record', '--device', 'dut', ...TEXT, '-o', 'new.mmiocap', '--'];
    const run = await bench.run(...args, SYSTEM_QEMU, '-device', 'edu,id=dut', ...bad);
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(/^mmiobridge: QEMU ended with exit code 1\n/);
    expect(run.stderr).toContain(words);
    expect(run.stderr).toMatch(/\n {2}hint: [^\n]+\n$/);
    expect(bench.read('x.mmiotrace')).toBe('from yesterday\n');
    expect(existsSync(bench.path('new.mmiocap'))).toBe(false);
    await expectNothingLeft();
  });

  test('an output that cannot be written spoils no other', async () => {
    writeFileSync(bench.path('x.mmiotrace'), 'from yesterday\n');
    const bad = join('nowhere', 'x.mmiocap');
    const args = ['record', '--device', 'dut', ...TEXT, '-o', 'new.ndjson', '-o', bad, '--'];
    const run = await bench.run(...args, ...(await endless()));
    expect(run.status).toBe(1);
    expect(run.stderr).toContain('nowhere/x.mmiocap');
    expect(bench.read('x.mmiotrace')).toBe('from yesterday\n');
    expect(existsSync(bench.path('new.ndjson'))).toBe(false);
    await expectNothingLeft();
  });
});

test('the guest that ends by itself ends the recording', async () => {
  const run = await bench.record(TEXT, await hammerGuest({ iterations: 1000 }));
  expect(await run.exited).toMatchObject({ status: 0 });
  expect(run.stderr).toContain(`QEMU ended with status ${HAMMER_DONE}`);
  expect(expectComplete(bench.read('x.mmiotrace'))).toBe(1000);
});
