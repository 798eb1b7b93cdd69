import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { redirectLog, restoreLog } from '../../src/machine/log-control.ts';
import { logTargetOf } from '../../src/machine/log-target.ts';
import { cmdlineOf, openFilesOf } from '../../src/machine/proc.ts';
import {
  readTraceState,
  restoreTraceState,
  setTraceEvents,
  type QmpCommands,
} from '../../src/machine/trace-control.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { isListening } from '../support/qemu.ts';
import { until } from '../support/soon.ts';

const EVENT = 'memory_region_ops_write';
const FAMILY = 'memory_region_ops_*';

let dir = '';
let child: ChildProcess;
let qmp: QmpClient;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'trace "control" \\ '));
  chmodSync(dir, 0o755);
});
afterEach(async () => {
  const ended = new Promise((resolve) => {
    child.once('exit', resolve);
  });
  await qmp.close();
  child.kill('SIGKILL');
  await ended;
  rmSync(dir, { recursive: true });
});

/** A running QEMU that is not ours; `stderr` is what its stderr goes to. */
async function start(args: readonly string[], stderr: number | 'pipe' = 'pipe'): Promise<number> {
  const socket = join(dir, 'qmp');
  const machine = '-machine pc -accel tcg -m 64 -nodefaults -display none -device e1000'.split(' ');
  child = spawn(
    'qemu-system-x86_64',
    [...machine, '-qmp', `unix:${socket},server=on,wait=off`, ...args],
    {
      stdio: ['ignore', 'ignore', stderr],
      cwd: dir,
    },
  );
  await until('QEMU listens', () => isListening(socket));
  qmp = await QmpClient.connect(`unix:${socket}`);
  return child.pid ?? -1;
}

function text(name: string): string {
  return readFileSync(join(dir, name), 'utf8');
}

/**
 * Waits until QEMU has logged further accesses into the file. The timer that the firmware leaves on
 * makes some 18 times a second. A `system_reset` would make more, but one that comes in the first
 * tenth of a second often hangs SeaBIOS.
 */
async function logsInto(name: string): Promise<void> {
  const before = text(name).length;
  await until('it is written', () => text(name).slice(before).includes('memory_region_ops_'));
}

describe('trace events', () => {
  it('need nothing on the command line, and end as they were, one by one', async () => {
    await start([]);
    const before = await readTraceState(qmp, [FAMILY]);
    expect(before).toEqual(
      new Map([
        [EVENT, false],
        ['memory_region_ops_read', false],
      ]),
    );

    await redirectLog(qmp, join(dir, '000001'));
    await setTraceEvents(qmp, [FAMILY], true);
    expect([...(await readTraceState(qmp, [FAMILY])).values()]).toEqual([true, true]);
    await logsInto('000001');

    await restoreTraceState(qmp, before);
    expect(await readTraceState(qmp, [FAMILY])).toEqual(before);
  });

  it('that the user had on stay on', async () => {
    await start(['-S', '-D', 'their.log', '-trace', EVENT]);
    const before = await readTraceState(qmp, ['*']);
    expect(before.size).toBeGreaterThan(1000);
    expect(before.get(EVENT)).toBe(true);
    await setTraceEvents(qmp, [FAMILY, 'pci_*'], true);
    await restoreTraceState(qmp, before);
    expect(await readTraceState(qmp, ['*'])).toEqual(before);
  });

  it('that this QEMU does not have are an error, not silence', async () => {
    await start(['-S']);
    await expect(readTraceState(qmp, ['no_such'])).rejects.toMatchObject({ code: 'not-found' });
    await expect(setTraceEvents(qmp, ['no_such'], true)).rejects.toMatchObject({
      code: 'not-found',
    });
    expect((await readTraceState(qmp, ['no_such_*'])).size).toBe(0);
  });
});

describe('the log', () => {
  it('of -D goes on in the same file, after what was in it', async () => {
    const pid = await start(['-trace', FAMILY, '-D', 'their-%d.log']);
    const path = join(dir, `their-${pid}.log`);
    const previous = logTargetOf(cmdlineOf(pid), pid);
    expect(previous).toEqual({ kind: 'file', path });
    await until('it is written', () => text(`their-${pid}.log`) !== '');

    await redirectLog(qmp, join(dir, '000001'));
    await until('QEMU has closed its log', () => openFilesOf(pid)?.includes(path) === false);
    const old = text(`their-${pid}.log`);
    await logsInto('000001');
    expect(text(`their-${pid}.log`)).toBe(old);

    expect(await restoreLog(qmp, previous)).toEqual({ path, note: undefined });
    await logsInto(`their-${pid}.log`);
    expect(text(`their-${pid}.log`).startsWith(old)).toBe(true);
    await until(
      'QEMU has closed its log',
      () => openFilesOf(pid)?.includes(join(dir, '000001')) === false,
    );
  });

  it('of a QEMU that would empty the file starts anew, with the old one put aside', async () => {
    const pid = await start(['-trace', FAMILY, '-D', 'their.log']);
    await until('it is written', () => text('their.log') !== '');
    await redirectLog(qmp, join(dir, '000001'));
    await until(
      'QEMU has closed its log',
      () => openFilesOf(pid)?.includes(join(dir, 'their.log')) === false,
    );
    const old = text('their.log');

    const restored = await restoreLog(asVersion(10), {
      kind: 'file',
      path: join(dir, 'their.log'),
    });
    expect(restored.note).toContain('their.log.before-mmiobridge');
    expect(text('their.log.before-mmiobridge')).toBe(old);
    await logsInto('their.log');
  });

  it('of a stderr that cannot be opened again goes nowhere and says so; items of -d survive', async () => {
    const pid = await start(['-d', 'cpu_reset']);
    const previous = logTargetOf(cmdlineOf(pid), pid);
    // Node gives its children sockets for pipes: QEMU can write to one, but never open it again.
    expect(previous).toEqual({ kind: 'stderr', is: 'other' });
    await redirectLog(qmp, join(dir, '000001'));
    await qmp.execute('system_reset');
    await until('it is written', () => text('000001').includes('CPU Reset'));
    expect(await restoreLog(qmp, previous)).toMatchObject({
      path: '/dev/null',
      note: expect.stringContaining('nowhere'),
    });
  });

  it('of a stderr that is a pipe goes back to the pipe', async () => {
    const pipe = join(dir, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const fd = openSync(pipe, 'r+');
    writeFileSync(join(dir, 'stderr'), '');
    const sink = openSync(join(dir, 'stderr'), 'a');
    const cat = spawn('cat', [pipe], { stdio: ['ignore', sink, 'ignore'] });
    try {
      const pid = await start(['-trace', FAMILY], fd);
      const previous = logTargetOf(cmdlineOf(pid), pid);
      expect(previous).toEqual({ kind: 'stderr', is: 'stream' });
      await logsInto('stderr');
      await redirectLog(qmp, join(dir, '000001'));
      await logsInto('000001');
      expect(await restoreLog(qmp, previous)).toEqual({ path: '/dev/stderr', note: undefined });
      await logsInto('stderr');
    } finally {
      cat.kill();
      closeSync(fd);
      closeSync(sink);
    }
  });

  it.each([
    ['a', '/dev/stderr'],
    ['w', 'stderr.after-mmiobridge'],
  ])('of a stderr that is a file opened with %s goes to %s', async (flags, expected) => {
    writeFileSync(join(dir, 'stderr'), '');
    const fd = openSync(join(dir, 'stderr'), flags);
    const pid = await start(['-trace', FAMILY], fd);
    closeSync(fd);
    const previous = logTargetOf(cmdlineOf(pid), pid);
    await until('it is written', () => text('stderr') !== '');
    await redirectLog(qmp, join(dir, '000001'));
    await logsInto('000001');
    const old = text('stderr');

    const restored = await restoreLog(qmp, previous);
    expect(restored.path.endsWith(expected)).toBe(true);
    await logsInto(flags === 'a' ? 'stderr' : 'stderr.after-mmiobridge');
    expect(text('stderr').startsWith(old)).toBe(true);
  });

  it('stays where it is if QEMU cannot write the new file', async () => {
    await start(['-trace', FAMILY, '-D', 'their.log']);
    await expect(redirectLog(qmp, '/nowhere/000001')).rejects.toMatchObject({
      code: 'refused',
      evidence: expect.stringContaining(
        "Could not open '/nowhere/000001': No such file or directory",
      ),
      hint: expect.stringContaining('--spool'),
    });
    await logsInto('their.log');
  });

  it('would be lost by a logfile that fails, which is why it is tried out first', async () => {
    await start(['-trace', FAMILY, '-D', 'their.log']);
    await until('it is written', () => text('their.log').includes("name 'pic'"));
    const unchecked: QmpCommands = {
      execute: async () => ({}),
      hmp: (line) => qmp.hmp(line),
    };
    await expect(redirectLog(unchecked, '/nowhere/000001')).rejects.toMatchObject({
      message: expect.stringContaining('now logs nowhere'),
      evidence: 'Error opening logfile /nowhere/000001: No such file or directory',
    });
    const length = text('their.log').length;
    await new Promise((resolve) => {
      setTimeout(resolve, 500);
    });
    expect(text('their.log')).toHaveLength(length);
  });

  it('takes no path that QEMU would read as something else', async () => {
    await start(['-S']);
    await expect(redirectLog(qmp, join(dir, 'a%db'))).rejects.toMatchObject({ code: 'usage' });
    await expect(redirectLog(qmp, 'relative')).rejects.toMatchObject({ code: 'usage' });
    mkdirSync(join(dir, 'é, \n'));
    await redirectLog(qmp, join(dir, 'é, \n', '000001'));
    expect(existsSync(join(dir, 'é, \n', '000001'))).toBe(true);
  });
});

/** The running QEMU, but with another version's answer to `query-version`. */
function asVersion(major: number): QmpCommands {
  return {
    execute: async (command, args) =>
      command === 'query-version'
        ? { qemu: { major, minor: 0, micro: 0 } }
        : qmp.execute(command, args),
    hmp: (line) => qmp.hmp(line),
  };
}
