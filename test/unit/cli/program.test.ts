/** The built program as its user meets it. No guest is needed for any of it. */
import {
  closeSync,
  existsSync,
  linkSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it, vi } from 'vitest';
import { MAIN, Workplace, run, runCli, startCli, type CliResult } from '../../support/cli.ts';
import { SOON } from '../../support/soon.ts';

const KERNEL_LOG = fileURLToPath(new URL('../../golden/kernel-nvme.mmiotrace', import.meta.url));
const COMMANDS = [
  'record',
  'resume',
  'convert',
  'mark',
  'status',
  'listen',
  'doctor',
  'bind',
  'unbind',
  'completion',
];

/** A log of one passed-through device, its lines begun as `prefix` says for each microsecond. */
function qemuLog(prefix: (us: number) => string): string {
  return [
    'vfio_region_setup Device 0000:01:00.0, region 0 "0000:01:00.0 BAR 0", flags: 0x7, offset: 0x0, size: 0x20000',
    'pci_update_mappings_add vfio-pci 00:03.0 0,0xfeb80000+0x20000',
    'vfio_region_write  (0000:01:00.0:region0+0xf00, 0x28, 4)',
    'vfio_region_read  (0000:01:00.0:region0+0xf00, 4) = 0x1234',
  ]
    .map((line, us) => `${prefix(us)}${line}\n`)
    .join('');
}
const stamped = (us: number) => `6103@1795392285.${String(924324 + us)}:`;
const LOG = qemuLog(stamped);
const WITHOUT_MAPPINGS = LOG.split('\n').slice(2).join('\n');

/** R and W lines without their times. */
function accessesOf(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => /^[RW] /.test(line))
    .map((line) => line.replace(/ \d+\.\d{6} /, ' '));
}
const ACCESSES = ['W 4 1 0xfeb80f00 0x28 0x0 0', 'R 4 1 0xfeb80f00 0x1234 0x0 0'];

function marksOf(text: string): string[] {
  return text.split('\n').filter((line) => line.startsWith('MARK '));
}

/** What an error says: what failed, the evidence, a hint; and no line of the program itself. */
function refusal(result: CliResult, status: number): string {
  expect(result.status).toBe(status);
  expect(result.stderr).toMatch(/^mmiobridge: /m);
  expect(result.stderr).toMatch(/^ {2}hint: /m);
  expect(result.stderr).not.toMatch(/\n\s+at |\.[jt]s:\d+/);
  return result.stderr;
}

describe('help', () => {
  it.each(COMMANDS)('of %s has an example', async (command) => {
    const { status, stdout } = await runCli([command, '--help']);
    expect(status).toBe(0);
    expect(stdout).toMatch(new RegExp(String.raw`^Examples?:\n[^]*mmiobridge ${command}`, 'm'));
  });

  it.each(['record', 'convert'])('of %s names its exit statuses', async (command) => {
    const { stdout } = await runCli([command, '--help']);
    expect(stdout).toMatch(/Exit status: 0 .*; 1 failure; 2 usage; 3 /);
  });

  it('lists all commands', async () => {
    const { stdout } = await runCli(['--help']);
    for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
  });
});

describe('usage errors end with status 2', () => {
  it.each([
    ['no command', [], /Usage: mmiobridge/],
    ['an unknown command', ['recrod'], /unknown command 'recrod'[^]*Did you mean record/],
    ['an unknown option', ['record', '--devise', 'x'], /unknown option '--devise'/],
    ['a choice that is none', ['record', '--overflow', 'block'], /Allowed choices are pause, drop/],
    ['a size that is none', ['record', '--spool-limit', 'lots'], /lots is no size/],
    ['a spool that holds nothing', ['record', '--spool-limit', '1K'], /1K is too little.*1M/],
    ['a time that is too long', ['record', '--duration', '2200000'], /2200000 is too long/],
    ['a device without a name', ['record', '--device', ''], /'-d, --device <id>'.*it is empty/],
    [
      "QEMU's option where ours belong",
      ['record', '-device', 'nic', '--', 'qemu-system-x86_64'],
      /-device is an option of QEMU[^]*ours is --device/,
    ],
    [
      "QEMU's command line without --",
      ['record', 'qemu-system-x86_64', '-m', '4G'],
      /QEMU's command line stands behind --[^]*record \[options\] -- qemu-system-x86_64/,
    ],
    ['a time that is none', ['record', '--duration', 'ever'], /ever is no number of seconds/],
    ['convert without an output', ['convert', 'x.log'], /required option '-o, --output/],
    [
      'a --bar-base that is none',
      ['convert', 'x', '-o', '-', '--bar-base', 'x'],
      /0000:01:00\.0:0=/,
    ],
    ['a PCI address that is none', ['bind', '1:2'], /1:2 is no PCI address: write 0000:01:00\.0/],
    ['unbind without an address', ['unbind'], /missing required argument 'address'/],
    ['a shell that is none', ['completion', 'csh'], /Allowed choices are bash, zsh, fish/],
  ] as const)('%s', async (_, args, words) => {
    const { status, stdout, stderr } = await runCli(args);
    expect(stderr).toMatch(words);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });
});

describe('convert takes a QEMU log', () => {
  it.each([
    ['of QEMU 7.2 and 10.0 with -msg timestamp=on', stamped],
    ['of QEMU 11.1', (us: number) => `2026-11-23T00:14:37.08683${us}Z `],
    ['without time stamps', () => ''],
  ])('%s', async (_, prefix) => {
    await using at = new Workplace();
    const { status, stdout, stderr } = await at.cli(['convert', '-', '-o', '-'], {
      input: qemuLog(prefix),
    });
    expect(accessesOf(stdout)).toEqual(ACCESSES);
    expect(stdout).toContain('MAP ');
    expect(stderr).toBe('2 accesses\n');
    expect(status).toBe(0);
  });

  it('and says so where it has no times', async () => {
    const { stdout } = await runCli(['convert', '-', '-o', '-'], { input: qemuLog(() => '') });
    expect(stdout).toContain('the log has no time stamps: all times are 0');
  });

  it('in pieces, cut anywhere', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('1.log'), LOG.slice(0, 250));
    writeFileSync(at.path('2.log'), LOG.slice(250));
    const { status, stdout } = await at.cli(['convert', '1.log', '2.log', '-o', '-']);
    expect(accessesOf(stdout)).toEqual(ACCESSES);
    expect(status).toBe(0);
  });

  it('compressed', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('qemu.log.gz'), gzipSync(LOG));
    const { stdout } = await at.cli(['convert', 'qemu.log.gz', '-o', '-']);
    expect(accessesOf(stdout)).toEqual(ACCESSES);
  });

  it('of two devices with BARs of different sizes, each at its own addresses', async () => {
    await using at = new Workplace();
    writeFileSync(
      at.path('two.log'),
      [
        'vfio_region_setup Device 0000:01:00.0, region 0 "0000:01:00.0 BAR 0", flags: 0x7, offset: 0x0, size: 0x20000',
        'vfio_region_setup Device 0000:02:00.0, region 0 "0000:02:00.0 BAR 0", flags: 0x7, offset: 0x0, size: 0x1000',
        'pci_update_mappings_add vfio-pci 00:04.0 0,0xfebf0000+0x1000',
        'pci_update_mappings_add vfio-pci 00:03.0 0,0xfeb80000+0x20000',
        'vfio_region_write  (0000:01:00.0:region0+0x10, 0x1, 4)',
        'vfio_region_write  (0000:02:00.0:region0+0x10, 0x2, 4)',
        '',
      ].join('\n'),
    );
    const both = await at.cli(['convert', 'two.log', '-o', '-']);
    expect(accessesOf(both.stdout)).toEqual([
      'W 4 1 0xfeb80010 0x1 0x0 0',
      'W 4 2 0xfebf0010 0x2 0x0 0',
    ]);
    const one = await at.cli(['convert', 'two.log', '-d', '0000:02:00.0', '-o', '-']);
    expect(accessesOf(one.stdout)).toEqual(['W 4 1 0xfebf0010 0x2 0x0 0']);
  });

  it('without mappings: addresses are offsets, and a MARK says so', async () => {
    const { stdout } = await runCli(['convert', '-', '-o', '-'], { input: WITHOUT_MAPPINGS });
    expect(accessesOf(stdout)).toEqual(['W 4 0 0xf00 0x28 0x0 0', 'R 4 0 0xf00 0x1234 0x0 0']);
    expect(marksOf(stdout).join('\n')).toContain('no mapping known, addresses are offsets');
  });

  it('without mappings, and told where the BAR is', async () => {
    const base = '0000:01:00.0:0=0xf0000000+0x20000';
    const { stdout } = await runCli(['convert', '-', '--bar-base', base, '-o', '-'], {
      input: WITHOUT_MAPPINGS,
    });
    expect(accessesOf(stdout)).toEqual([
      'W 4 1 0xf0000f00 0x28 0x0 0',
      'R 4 1 0xf0000f00 0x1234 0x0 0',
    ]);
    expect(stdout).toMatch(/^MAP \d+\.\d{6} 1 0xf0000000 0x0 0x20000 0x0 0$/m);
    expect(stdout).not.toContain('no mapping known');
  });

  it('that is damaged: reads on, says where, and ends with status 3', async () => {
    const lines = LOG.split('\n');
    lines[2] = lines[2]?.replace('0x28', '0xzz') ?? '';
    const { status, stdout, stderr } = await runCli(['convert', '-', '-o', '-'], {
      input: lines.join('\n'),
    });
    const byte = lines[0]!.length + lines[1]!.length + 2;
    expect(accessesOf(stdout)).toEqual(ACCESSES.slice(1));
    expect(stderr).toContain('1 access\n1 damaged place, stepped over:\n');
    expect(stderr).toContain(`byte ${byte}: `);
    expect(stderr).toContain('0xzz');
    expect(marksOf(stdout).join('\n')).toContain(`mmiobridge: damage at byte ${byte},`);
    expect(status).toBe(3);
  });
});

describe('convert of a large log', () => {
  /** Enough for a thread of its own; rows, events, damage and lines of others in all mixtures. */
  const lines = Array.from({ length: 120_000 }, (_, line) => {
    const us = 100_000 + line;
    if (line < 10_000 || line > 20_000 || line % 3 === 0) {
      return `6103@1795392285.${us}:vfio_region_write  (0000:01:00.0:region0+0x${(line % 999).toString(16)}, 0x${line.toString(16)}, 4)\n`;
    }
    if (line % 7 === 0) return 'vfio_region_write  (0000:01:00.0:regi\n';
    if (line % 11 === 0) return 'kvm_something else\n';
    return `6103@1795392285.${us}:vfio_msi_interrupt  (0000:01:00.0) vector ${line % 5} 0xfee00000/0x4021\n`;
  });
  const log = LOG + lines.join('');

  it('is large enough', () => expect(log.length).toBeGreaterThan(8 * 1024 * 1024));

  it.each(['.mmiotrace', '.ndjson'])('gives the same %s as reading it from a pipe', async (to) => {
    await using place = new Workplace();
    writeFileSync(place.path('a.log'), log);
    const file = await place.cli(['convert', 'a.log', '-o', `a${to}`]);
    const pipe = await place.cli(['convert', '-', '-o', `b${to}`], { input: log });
    expect(file).toEqual(pipe);
    expect(file.status).toBe(3);
    expect(file.stdout + file.stderr).toMatch(/^113,334 accesses$/m);
    expect(place.text(`a${to}`) === place.text(`b${to}`)).toBe(true);
  });

  it('whose second piece cannot be decompressed: what was read is written, then the error', async () => {
    await using place = new Workplace();
    writeFileSync(place.path('a.log'), log);
    writeFileSync(place.path('b.log.gz'), gzipSync(LOG).subarray(0, 60));
    const inputs = ['a.log', 'b.log.gz'];
    const result = await place.cli(['convert', ...inputs, '-o', 'a.mmiotrace']);
    expect(refusal(result, 1)).toContain('b.log.gz cannot be decompressed to its end');
    expect(accessesOf(place.text('a.mmiotrace'))).toHaveLength(113_334);
  });
});

describe('convert takes what the kernel wrote', () => {
  it('through a capture and back, byte for byte', async () => {
    await using at = new Workplace();
    const there = await at.cli(['convert', KERNEL_LOG, '-o', 'nvme.mmiocap']);
    const back = await at.cli(['convert', 'nvme.mmiocap', '-o', 'nvme.txt']);
    expect([there.status, back.status]).toEqual([0, 0]);
    expect(at.text('nvme.txt')).toBe(readFileSync(KERNEL_LOG, 'latin1'));
  });

  it('into several outputs at once', async () => {
    await using at = new Workplace();
    const outputs = ['-o', 'a.mmiocap', '-o', 'a.txt.gz', '-o', 'a.ndjson', '-o', '-'];
    const { status, stdout, stderr } = await at.cli(['convert', KERNEL_LOG, ...outputs]);
    const text = readFileSync(KERNEL_LOG, 'latin1');
    expect(stdout).toBe(text);
    expect(gunzipSync(readFileSync(at.path('a.txt.gz'))).toString('latin1')).toBe(text);
    const objects = at
      .text('a.ndjson')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { readonly type: string });
    expect(objects.filter(({ type }) => type === 'access')).toHaveLength(accessesOf(text).length);
    expect(readFileSync(at.path('a.mmiocap')).subarray(1, 4).toString()).toBe('MIO');
    expect(stderr).toBe('275 accesses\n');
    expect(status).toBe(0);
  });

  it('in a format that --format names, where the suffix does not', async () => {
    await using at = new Workplace();
    await at.cli(['convert', KERNEL_LOG, '--format', 'ndjson', '-o', 'nvme.dump']);
    expect(at.text('nvme.dump')).toMatch(/^\{"type":"header"/);
  });
});

describe('what the system refuses is told, and is no defect', () => {
  const intoFull = (...args: readonly string[]) =>
    spawnSync(process.execPath, [MAIN, ...args], {
      stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
      encoding: 'utf8',
    });

  it('a folder where a file is to be', async () => {
    await using at = new Workplace();
    const result = await at.cli(['convert', '.', '-o', 'x.txt']);
    expect(refusal(result, 1)).toContain('cannot read .\n  it is a folder');
    expect(refusal(await at.cli(['view', '.']), 1)).toContain('it is a folder');
  });

  it('a run folder, or a spool, that is a file', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('file'), '');
    const env = { MMIOBRIDGE_RUN: at.path('file') };
    const guest = ['--', 'qemu-system-x86_64', '-nodefaults'];
    const status = await at.cli(['status'], { env });
    expect(refusal(status, 1)).toContain('cannot look into the folder of recordings');
    const record = await at.cli(['record', ...guest], { env });
    expect(refusal(record, 1)).toMatch(/cannot write .*\/file\n {2}EEXIST/);
    const spool = await at.cli(['record', '--spool', 'file', ...guest]);
    expect(refusal(spool, 1)).toMatch(/cannot make the spool .*\/file\/mmiobridge-/);
  });

  it('standard output that is full', () => {
    const { status, stderr } = intoFull('completion', 'bash');
    expect([status, stderr]).toEqual([
      1,
      'mmiobridge: cannot write to standard output: ENOSPC: no space left on device, write\n',
    ]);
  });

  it('standard output that nobody reads any more, or that is closed', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('a.log'), LOG);
    const shell = (line: string) => run('bash', ['-c', line], { cwd: at.dir });
    const node = `${process.execPath} ${MAIN}`;
    const gone = await shell(`${node} --help | head -1; exit "\${PIPESTATUS[0]}"`);
    expect(gone).toMatchObject({ status: 0, stderr: '' });
    const closed = await shell(`${node} convert a.log -o - >&-`);
    expect(closed.status).toBe(1);
    expect(closed.stderr).toContain('cannot write to standard output\n  it is closed');
  });
});

it('outputs have the format that their suffix names, in capitals too', async () => {
  await using at = new Workplace();
  writeFileSync(at.path('a.log'), LOG);
  expect((await at.cli(['convert', 'a.log', '-o', 'A.MMIOTRACE.GZ'])).status).toBe(0);
  expect(gunzipSync(readFileSync(at.path('A.MMIOTRACE.GZ'))).toString()).toMatch(/^VERSION /);
});

describe('listen destroys nothing', () => {
  it('a file where its socket is to be', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('notes'), 'mine');
    const result = await at.cli(['listen', 'unix:notes', '-o', '{session}.txt'], {
      env: { MMIOBRIDGE_TOKEN: 'secret-of-sixteen-and-more-characters' },
    });
    expect(refusal(result, 1)).toContain('notes is there, and is no socket');
    expect(at.text('notes')).toBe('mine');
  });

  it('a path that no socket can have', async () => {
    await using at = new Workplace();
    const args = ['listen', `unix:${'long'.repeat(40)}`, '-o', '{session}.txt'];
    const result = await at.cli(args, {
      env: { MMIOBRIDGE_TOKEN: 'secret-of-sixteen-and-more-characters' },
    });
    expect(refusal(result, 2)).toContain('the path of a socket is too long');
  });
});

describe('convert destroys nothing', () => {
  it('an output that is the input, by whatever name', async () => {
    await using at = new Workplace();
    const log = readFileSync(KERNEL_LOG);
    writeFileSync(at.path('x.txt'), log);
    symlinkSync('x.txt', at.path('y.txt'));
    linkSync(at.path('x.txt'), at.path('z.txt'));
    for (const output of ['x.txt', './x.txt', at.path('x.txt'), 'y.txt', 'z.txt']) {
      const result = await at.cli(['convert', 'x.txt', '-o', output]);
      expect(refusal(result, 2)).toContain('the output is the input');
    }
    const piped = await at.cli(['convert', '-', '-o', 'x.txt'], { input: log });
    expect(piped.status).toBe(0);
    expect(readFileSync(at.path('x.txt'))).toEqual(log);
  });

  it('two outputs that are one file', async () => {
    await using at = new Workplace();
    symlinkSync('x.txt', at.path('y.txt'));
    writeFileSync(at.path('x.txt'), 'mine');
    const result = await at.cli(['convert', KERNEL_LOG, '-o', 'x.txt', '-o', 'y.txt']);
    expect(refusal(result, 2)).toContain('two outputs cannot go to one file');
    expect(at.text('x.txt')).toBe('mine');
  });

  it('a file that another program is writing', async () => {
    await using at = new Workplace();
    const file = openSync(at.path('x.txt'), 'w');
    try {
      const result = await at.cli(['convert', KERNEL_LOG, '-o', 'x.txt']);
      expect(refusal(result, 1)).toContain('x.txt is being written by another process');
      expect(refusal(result, 1)).toContain(`process ${process.pid}`);
    } finally {
      closeSync(file);
    }
  });

  it('what was there stays until all of the new is there; nothing is left of one that is killed', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('x.txt'), 'mine', { mode: 0o640 });
    const args = ['convert', '-', '-o', 'x.txt'];
    const started = startCli(args, { cwd: at.dir });
    started.child.stdin?.write(readFileSync(KERNEL_LOG));
    await vi.waitFor(() => expect(readdirSync(at.dir)).toHaveLength(2), SOON);
    expect(at.text('x.txt')).toBe('mine');
    started.child.kill('SIGINT');
    expect(await started.exited).toMatchObject({ status: 130 });
    expect([readdirSync(at.dir), at.text('x.txt')]).toEqual([['x.txt'], 'mine']);
    expect((await at.cli(['convert', KERNEL_LOG, '-o', 'x.txt'])).status).toBe(0);
    expect(readdirSync(at.dir)).toEqual(['x.txt']);
    expect(statSync(at.path('x.txt')).mode & 0o777).toBe(0o640);
  });
});

describe('convert of what was cut off', () => {
  it('a capture: what was read is written, status 3', async () => {
    await using at = new Workplace();
    await at.cli(['convert', KERNEL_LOG, '-o', 'whole.mmiocap']);
    const whole = readFileSync(at.path('whole.mmiocap'));
    writeFileSync(at.path('cut.mmiocap'), whole.subarray(0, -7));
    const { status, stderr } = await at.cli(['convert', 'cut.mmiocap', '-o', 'cut.txt']);
    expect(status).toBe(3);
    expect(stderr).toMatch(/1 damaged place, stepped over:\n {2}byte \d+: .*cut off/);
    expect(accessesOf(at.text('cut.txt'))).toHaveLength(275);
    expect(marksOf(at.text('cut.txt')).join('\n')).toContain('mmiobridge: damage at ');
  });

  it('compressed text: what could be decompressed is written, and it is no success', async () => {
    await using at = new Workplace();
    const whole = gzipSync(readFileSync(KERNEL_LOG));
    writeFileSync(at.path('cut.txt.gz'), whole.subarray(0, -40));
    const result = await at.cli(['convert', 'cut.txt.gz', '-o', 'cut.txt']);
    expect(refusal(result, 1)).toMatch(
      /cut\.txt\.gz cannot be decompressed to its end\n {2}unexpected end of/,
    );
    const got = accessesOf(at.text('cut.txt'));
    expect(got.length).toBeGreaterThan(50);
    expect(accessesOf(readFileSync(KERNEL_LOG, 'latin1')).slice(0, got.length)).toEqual(got);
  });
});

describe('convert refuses', () => {
  it.each([
    [
      'a text that is no log',
      'hello world\n',
      [],
      1,
      /the input has no line of a known QEMU trace event/,
    ],
    ['nothing', '', [], 1, /no line of a known[^]*it is empty/],
    ['a device that is not in it', LOG, ['-d', 'nic7'], 1, /no device nic7\n.*0000:01:00\.0/],
    ['an unknown suffix', LOG, ['-o', 'trace.log'], 2, /trace\.log is not known[^]*\.mmiotrace/],
    ['a folder that is not there', LOG, ['-o', 'no/where.txt'], 1, /cannot write no\/where\.txt/],
  ] as const)('%s', async (_, input, args: readonly string[], status, words) => {
    await using at = new Workplace();
    writeFileSync(at.path('in'), input);
    const outputs = args.includes('-o') ? args : [...args, '-o', 'out.txt'];
    expect(refusal(await at.cli(['convert', 'in', ...outputs]), status)).toMatch(words);
  });

  it('an input that is not there', async () => {
    const { status, stderr } = await runCli(['convert', 'nowhere.log', '-o', '-']);
    expect(stderr).toMatch(/^mmiobridge: cannot read nowhere\.log\n {2}ENOENT/);
    expect(status).toBe(1);
  });

  it('one file for two outputs, and leaves it alone', async () => {
    await using at = new Workplace();
    writeFileSync(at.path('in'), LOG);
    writeFileSync(at.path('out.txt'), 'precious');
    const { status, stderr } = await at.cli(['convert', 'in', '-o', 'out.txt', '-o', 'out.txt']);
    expect(stderr).toMatch(/two outputs cannot go to one file\n {2}out\.txt/);
    expect(status).toBe(2);
    expect(at.text('out.txt')).toBe('precious');
  });

  it('two inputs that are no QEMU logs', async () => {
    const result = await runCli(['convert', KERNEL_LOG, KERNEL_LOG, '-o', '-']);
    expect(refusal(result, 2)).toMatch(/only a QEMU log can come in several pieces/);
  });
});

describe('where nothing is recorded', () => {
  it('mark says so', async () => {
    await using at = new Workplace();
    const said = refusal(await at.cli(['mark', 'hello']), 1);
    expect(said).toContain(`no recording runs\n  none in ${at.runDir}`);
  });

  it('status says so, and that is an answer', async () => {
    await using at = new Workplace();
    expect(await at.cli(['status'])).toMatchObject({ status: 0, stdout: 'no recordings\n' });
    expect((await at.cli(['status', '--json'])).stdout).toBe('[]\n');
  });

  it('a recording that is asked for by name is not found', async () => {
    await using at = new Workplace();
    for (const command of [
      ['status', '-s', 'R1'],
      ['mark', '-s', 'R1', 'x'],
      ['resume', 'R1'],
    ]) {
      const said = refusal(await at.cli(command), 1);
      expect(said).toMatch(/no recording (is called )?R1/);
      expect(said).toContain(at.runDir);
    }
  });
});

describe('record refuses', () => {
  const QEMU = ['--', 'qemu-system-x86_64'];
  it.each([
    ['no command line', [], /there is no QEMU command line/],
    ['a QEMU to start and one to attach to', ['--qmp', '/x', ...QEMU], /not both/],
    ['-daemonize', [...QEMU, '-daemonize'], /background[^]*-daemonize[^]*--qmp SOCKET/],
    ['-trace file=', [...QEMU, '-trace', 'vfio*,file=x'], /QEMU has one log[^]*file=x[^]*with -D/],
    ['-d tid', [...QEMU, '-d', 'all'], /a log of its own/],
    ['help', [...QEMU, '-device', 'help'], /only prints help/],
    ['an output of unknown suffix', ['-o', 'x.log', ...QEMU], /x\.log is not known/],
  ] as const)('%s', async (_, args, words) => {
    await using at = new Workplace();
    expect(refusal(await at.cli(['record', ...args]), 2)).toMatch(words);
    expect(existsSync(at.path('trace.mmiocap'))).toBe(false);
  });

  it('a QMP socket that is not there', async () => {
    await using at = new Workplace();
    const result = await at.cli(['record', '--qmp', '/nowhere/qmp.sock']);
    expect(refusal(result, 1)).toMatch(/there is no QMP socket \/nowhere\/qmp\.sock[^]*-qmp unix:/);
  });

  it('a program that is not there', async () => {
    await using at = new Workplace();
    expect(refusal(await at.cli(['record', '--', './qemu']), 1)).toMatch(
      /there is no program \.\/qemu/,
    );
  });
});

describe('record --dry-run', () => {
  const argv = [
    'printf',
    '%s\\n',
    '-name',
    "it's a $guest; `x`",
    '-device',
    'vfio-pci,host=01:00.0',
  ];

  it('prints what a shell reads back as the same words', async () => {
    await using at = new Workplace();
    const { status, stdout, stderr } = await at.cli(['record', '--dry-run', '--', ...argv]);
    expect([status, stderr]).toEqual([0, '']);
    // The program prints its words: so the shell shows what QEMU would have got.
    const { stdout: words } = await run('sh', ['-c', stdout]);
    const got = words.trimEnd().split('\n');
    const user = argv.slice(2);
    expect(got.slice(0, user.length)).toEqual(user);
    const ours = got.slice(user.length);
    expect(ours).toEqual(expect.arrayContaining(['-D', '-S', 'vfio_region_read']));
    expect(ours[ours.indexOf('-msg') + 1]).toBe('timestamp=on');
  });

  it('says why for each word that it adds', async () => {
    await using at = new Workplace();
    const { stdout } = await at.cli(['record', '--dry-run', '--', ...argv]);
    const comments = stdout.split('\n').filter((line) => line.startsWith('# '));
    for (const option of ['-qmp', '-D', '-msg', '-trace', '-S']) {
      expect(comments.some((line) => line.startsWith(`# ${option}`))).toBe(true);
    }
  });

  it('leaves nothing behind', async () => {
    await using at = new Workplace();
    await at.cli(['record', '--dry-run', '--', ...argv]);
    expect((await at.cli(['status'])).stdout).toBe('no recordings\n');
    expect(existsSync(at.path('trace.mmiocap'))).toBe(false);
  });
});
