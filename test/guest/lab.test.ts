import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { processesOf } from '../../src/machine/proc.ts';
import { readTraceState } from '../../src/machine/trace-control.ts';
import { Bench, steadyHammer } from '../support/attach.ts';
import { startCli, type CliProcess } from '../support/cli.ts';
import { FIRMWARE_GUEST, LabPlace } from '../support/lab-runs.ts';
import { until } from '../support/soon.ts';

let place: LabPlace;
beforeEach(() => {
  place = new LabPlace();
});
afterEach(() => place[Symbol.asyncDispose]());

const START = `
- start:
    qemu: ${FIRMWARE_GUEST}
    record: { device: dut }
`;

/** The QEMUs of this test that run. */
function qemus(): number[] {
  return processesOf(place.runDir).filter((pid) => pid !== process.pid);
}

/** Waits until a run is in its step `long`. */
async function inLongStep(run: CliProcess): Promise<void> {
  await until(
    () => `the long step: ${run.stderr()}`,
    () => run.stderr().includes('long …'),
  );
}

/** Whatever a run has taken is given back. */
function expectNothingLeft(): void {
  expect(qemus()).toEqual([]);
  expect(readdirSync(place.runDir)).toEqual([]);
}

describe('a run of a guest that is nothing but firmware', () => {
  test('in ten lines: what it writes first, and what it leaves', async () => {
    place.scenario(
      'pxe.yaml',
      `${START}
- wait-access: write bar0+0x0
- wait-quiet: 300ms`,
    );
    const result = await place.run('pxe.yaml');
    expect(result.status, result.stderr).toBe(0);
    expect(result.stderr).toMatch(
      /^00:\d\d\.\d {2}2\/3 {2}wait-access {2}ok .* write dut BAR0\+0x0 = 0x/m,
    );
    expect(result.stderr).toMatch(/^passed$/m);
    expect(place.manifest).toMatchObject({ result: 'passed', recording: { complete: true } });
    expect(readdirSync(place.folder).toSorted()).toEqual([
      'junit.xml',
      'manifest.json',
      'scenario.yaml',
      'trace.mmiocap',
      'trace.mmiotrace',
    ]);
    const capture = await place.cli(['convert', join(place.folder, 'trace.mmiocap'), '-o', '-']);
    const rows = (text: string) => [...text.matchAll(/^[RW] /gm)].length;
    expect(rows(capture.stdout)).toBe(place.manifest.recording?.accesses);
    expectNothingLeft();
  });

  test('with the outputs that it names, in two runs beside each other', async () => {
    place.scenario(
      'pxe.yaml',
      `
- start:
    qemu: ${FIRMWARE_GUEST}
    record: { device: dut, output: [a.ndjson, b.txt.gz] }
- wait-access: write`,
    );
    const both = await Promise.all([place.run('pxe.yaml'), place.run('pxe.yaml')]);
    expect(both.map(({ status }) => status)).toEqual([0, 0]);
    expect(place.folders).toHaveLength(2);
    for (const folder of place.folders) {
      expect(readdirSync(folder)).toEqual(expect.arrayContaining(['a.ndjson', 'b.txt.gz']));
    }
    expectNothingLeft();
  });
});

describe('a step that fails says what, with the evidence, and what to do; everything is put back:', () => {
  test.each<[string, string, RegExp[]]>([
    [
      'a text that does not come',
      `
- start: { qemu: '${FIRMWARE_GUEST}', serial: [console], record: { device: dut } }
- { wait-serial: never, time-limit: 500ms }`,
      [
        /the text \/never\/m on the serial port console did not come within 500 ms/,
        /the serial port console (has said nothing|said last:)/,
      ],
    ],
    [
      'an access that does not come',
      `${START}
- wait-access: write
- { wait-access: write bar3+0x10, time-limit: 3s }`,
      [
        /the access did not come within 3 s/,
        /0 of 1 came, of [\d,]+ access/,
        /there is no region “bar3”; there is BAR0/,
      ],
    ],
    [
      'too few accesses',
      `${START}
- { wait-access: { filter: write, count: 99999999 }, time-limit: 3s }`,
      [/99,999,999 accesses did not come within 3 s/, /[\d,]+ of 99,999,999 came/],
    ],
    [
      'no quiet',
      `${START}
- wait-access: write
- { wait-quiet: 20s, time-limit: 1s }`,
      [/20 s without an access did not come within 1 s/, /access(es)? since the step began/],
    ],
    [
      'an event that does not come',
      `${START}
- { wait-event: WATCHDOG, time-limit: 300ms }`,
      [/the event WATCHDOG did not come within 300 ms/, /there was /],
    ],
    [
      'no agent',
      `
- start: { qemu: '${FIRMWARE_GUEST}', agent: true, record: { device: dut } }
- { wait-agent: {}, time-limit: 3s }`,
      [/an answer of the guest's agent did not come within 3 s/],
    ],
    [
      'a command where no agent is',
      `
- start: { qemu: '${FIRMWARE_GUEST}', agent: true, record: { device: dut } }
- { guest-run: 'true', time-limit: 2s }`,
      [/the guest agent did not answer within/, /is qemu-guest-agent installed/],
    ],
    [
      'no display',
      `${START}
- screendump: {}`,
      [/the VM has no display to take a picture of/, /give it one: -vga std/],
    ],
    [
      'no tablet',
      `
- start: { qemu: '${FIRMWARE_GUEST} -vga std', record: { device: dut } }
- click: { x: 1, y: 1 }`,
      [/no pointer that can be put at a place/, /-device usb-tablet/],
    ],
    [
      'a screen that does not match',
      `
- start: { qemu: '${FIRMWARE_GUEST} -vga std', record: { device: dut } }
- { wait-screen: { matches: white.png }, time-limit: 1s }`,
      [
        /a screen like white\.png did not come within 1 s/,
        /the nearest differed in \d+\.\d\d % of its pixels/,
      ],
    ],
    [
      'a device that is refused',
      `${START}
- plug: no-such-device,id=x`,
      [/QEMU refused to plug the device in/, /'no-such-device' is not a valid device model/],
    ],
    [
      'a device that is not there',
      `${START}
- unplug: nic9`,
      [/QEMU refused device_del/, /Device 'nic9' not found/],
    ],
    [
      'a guest that does not let go',
      `${START}
- { unplug: dut, time-limit: 500ms }`,
      [/the guest's letting go of dut did not come within 500 ms/, /acpiphp/],
    ],
    [
      'a drive that is not there',
      `${START}
- change-media: { device: cd9, file: x.iso }`,
      [/there is no drive with removable media called cd9/],
    ],
    [
      'a snapshot without a disk for it',
      `${START}
- save-snapshot: a`,
      [/QEMU refused to save a snapshot/, /savevm a: /, /needs a disk that holds it \(qcow2\)/],
    ],
    [
      'a snapshot that is not there',
      `${START}
- load-snapshot: a`,
      [/QEMU refused to load a snapshot/],
    ],
    [
      'a command of QMP that is not there',
      `${START}
- qmp: { execute: make-tea }`,
      [/QEMU refused make-tea/, /CommandNotFound/],
    ],
    [
      'no shutdown',
      `${START}
- { power-down: {}, time-limit: 1s }`,
      [/a shutdown of the guest did not come within 1 s/, /did not heed the power button/],
    ],
    [
      'a VM that ends meanwhile',
      `${START}
- { qmp: { execute: system_reset }, on-failure: ignore }
- wait-access: { filter: 'write bar5' }`.replace('-netdev', '-no-reboot -netdev'),
      [/the VM ended while the step waited for the access/, /the VM has ended/],
    ],
    [
      'a mark when it has ended',
      `${START}
- { qmp: { execute: system_reset }, on-failure: ignore }
- { wait-access: { filter: 'write bar5' }, on-failure: ignore }`.replace(
        '-netdev',
        '-no-reboot -netdev',
      ),
      [/never reached +FAILED/, /the recording has ended/],
    ],
    [
      'a device that the VM does not have',
      `
- start: { qemu: '${FIRMWARE_GUEST}', record: { device: gpu } }`,
      [/the VM has no device gpu/, /e1000 8086:100e/],
    ],
    [
      'a QEMU that does not start',
      `
- start: { qemu: '${FIRMWARE_GUEST} -device nonsense', record: { device: dut } }`,
      [/QEMU ended with exit code 1/, /'nonsense' is not a valid device model/],
    ],
    [
      'a program that is not there',
      `
- start: { qemu: no-qemu-here, record: { device: dut } }`,
      [/there is no program no-qemu-here/],
    ],
    [
      'a QMP socket that is not there',
      `
- attach: { qmp: /nowhere/qmp.sock, record: { device: dut } }`,
      [/there is no QMP socket \/nowhere\/qmp\.sock/],
    ],
    [
      'a command of the host',
      `
- host-run: 'echo so; echo what >&2; exit 4'`,
      [/\/bin\/sh ended with 4, not with 0/, /so\n\s+what/],
    ],
    [
      'a command of the host that does not end',
      `
- { host-run: sleep 60, time-limit: 300ms }`,
      [/\/bin\/sh did not end within 0\.3 s/],
    ],
  ])('%s', async (_, steps, messages) => {
    const { PNG } = await import('pngjs');
    const white = new PNG({ width: 720, height: 400 });
    white.data.fill(255);
    writeFileSync(place.path('white.png'), PNG.sync.write(white));
    place.scenario(
      'fails.yaml',
      `${steps}\n- mark: never reached`
        .replace(/(attach.*)\n- mark.*/s, '$1')
        .replace(/(host-run.*)\n- mark.*/s, '$1'),
    );
    const result = await place.run('fails.yaml', '--allow-host-commands');
    for (const message of messages) expect(result.stderr).toMatch(message);
    expect(result.status).toBe(1);
    const { steps: reports, left } = place.manifest;
    expect(place.manifest.result).toBe('failed');
    expect(reports.filter((each) => each.result === 'failed')).toHaveLength(1);
    expect(left).toEqual([]);
    expect(readFileSync(join(place.folder, 'junit.xml'), 'utf8')).toContain('failures="1"');
    expectNothingLeft();
  });

  test('with on-failure it goes on, and has failed; or has not', async () => {
    const steps = (how: string) => `${START}
- { name: bad, unplug: nic9, on-failure: ${how} }
- name: good
  wait-access: write`;
    place.scenario('on.yaml', steps('continue'));
    expect((await place.run('on.yaml')).status).toBe(1);
    expect(place.manifest.steps.map(({ result }) => result)).toEqual([
      'passed',
      'failed',
      'passed',
    ]);
    place.scenario('on.yaml', steps('ignore'));
    expect((await place.run('on.yaml')).status).toBe(0);
    expect(place.manifest.steps.map(({ result }) => result)).toEqual([
      'passed',
      'ignored',
      'passed',
    ]);
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    expect(text).toMatch(/^MARK \S+ bad failed: QEMU refused device_del$/m);
  });

  test('the time of the whole run is a limit, too', async () => {
    place.scenario('long.yaml', `${START}\n- wait: 1h`, 'time-limit: 3s');
    const result = await place.run('long.yaml');
    expect(result.status).toBe(1);
    expect(result.stderr).toContain('failed: the run took longer than 3 s');
    expectNothingLeft();
  });

  test('a recording that is incomplete is said, with status 3', async () => {
    place.scenario(
      'screen.yaml',
      `
- start:
    qemu: ${FIRMWARE_GUEST} -device vmware-svga,id=gpu
    record: { device: [dut, gpu] }
- wait-access: { filter: write bar0+0x0, since: start }`,
    );
    const result = await place.run('screen.yaml');
    expect(result.stderr).toContain('the recording is INCOMPLETE');
    expect(result.status, result.stderr).toBe(3);
  });
});

describe('a run that is ended from outside', () => {
  let cli: CliProcess | undefined;
  afterEach(() => cli?.kill());

  /** A run that has come to its step `long`, and `more` behind it. */
  async function beginLong(more = ''): Promise<CliProcess> {
    place.scenario(
      'long.yaml',
      `${START}\n- wait-access: write\n- name: long\n  wait: 1h\n${more}`,
    );
    const env = { MMIOBRIDGE_RUN: place.runDir };
    cli = startCli(['lab', 'run', 'long.yaml'], { cwd: place.dir, env });
    await inLongStep(cli);
    return cli;
  }

  async function killInLongStep(): Promise<void> {
    const run = await beginLong();
    run.child.kill('SIGKILL');
    await run.exited;
  }

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    'by %s puts everything back',
    async (signal) => {
      const run = await beginLong('- mark: x');
      run.child.kill(signal);
      expect((await run.exited).status).toBe(130);
      expect(run.stderr()).toContain('ending the run, and putting everything back');
      expect(place.manifest).toMatchObject({
        result: 'interrupted',
        reason: `interrupted by ${signal}`,
        recording: { complete: true },
      });
      expect(place.manifest.steps.map(({ result }) => result)).toEqual([
        'passed',
        'passed',
        'failed',
        'skipped',
      ]);
      expectNothingLeft();
    },
  );

  test('by SIGKILL leaves what `lab clean` puts back: the recording is whole, the VM is gone', async () => {
    await killInLongStep();
    expect(qemus()).toHaveLength(1);
    expect(place.manifest.result).toBe('running');
    const clean = await place.cli(['lab', 'clean']);
    expect(clean.stdout).toMatch(/is written to its end; its VM is ended/);
    expect(clean.status).toBe(0);
    expect(place.manifest).toMatchObject({ result: 'interrupted', left: [] });
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    expect(text).toMatch(/^MARK \S+ mmiobridge: end complete/m);
    expectNothingLeft();
    expect((await place.cli(['lab', 'clean'])).stdout).toBe('nothing to clean\n');
  });

  test('by SIGKILL, and its folder is gone: `lab clean` says how the recording is given up', async () => {
    await killInLongStep();
    rmSync(place.folder, { recursive: true });
    const clean = await place.cli(['lab', 'clean']);
    const way = /^ {2}LEFT recording \S+: .*ENOENT.*; mend that, or give the recording up: (.*)$/m;
    expect(clean.stdout).toMatch(way);
    expect(clean.status).toBe(1);
    const [, words = ''] = way.exec(clean.stdout) ?? [];
    expect(words).toMatch(/^kill \d+; rm -r \S+$/);
    execFileSync('sh', ['-c', words]);
    await until(
      () => 'the VM is gone',
      () => qemus().length === 0,
    );
    expect((await place.cli(['lab', 'clean'])).status).toBe(0);
    expectNothingLeft();
  });

  test('is left alone by `lab clean` while it runs', async () => {
    const run = await beginLong();
    const clean = await place.cli(['lab', 'clean']);
    expect(clean.stderr).toContain('left alone');
    expect(qemus()).toHaveLength(1);
    run.child.kill('SIGINT');
    await run.exited;
    expectNothingLeft();
  });
});

describe('a VM that runs already', () => {
  test('is recorded, and goes on as it was, also after a killed run and `lab clean`', async () => {
    const bench = await Bench.open();
    onTestFinished(() => bench.close());
    const guest = await bench.guest(await steadyHammer());
    const traced = async () =>
      [...(await readTraceState(guest.watcher, ['*'])).values()].filter(Boolean).length;
    expect(await traced()).toBe(0);
    place.scenario(
      'attach.yaml',
      `
- attach: { qmp: ${guest.socket}, record: { device: dut } }
- wait-access: { filter: write, count: 100 }
- name: long
  wait: 1h`,
    );
    const env = { MMIOBRIDGE_RUN: place.runDir };
    const run = startCli(['lab', 'run', 'attach.yaml'], { cwd: place.dir, env });
    try {
      await inLongStep(run);
      expect(await traced()).toBeGreaterThan(0);
      run.child.kill('SIGKILL');
      await run.exited;
    } finally {
      await run.kill();
    }
    const clean = await place.cli(['lab', 'clean']);
    expect(clean.stdout).toContain('QEMU is as it was');
    expect(await traced()).toBe(0);
    expect(guest.isRunning).toBe(true);
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    expect([...text.matchAll(/^W /gm)].length).toBeGreaterThan(100);

    place.scenario(
      'attach.yaml',
      `
- attach: { qmp: ${guest.socket}, record: { device: dut } }
- wait-access: { filter: write, count: 100 }`,
    );
    expect((await place.run('attach.yaml')).status).toBe(0);
    expect(await traced()).toBe(0);
    expect(guest.isRunning).toBe(true);
    expect(existsSync(join(place.folder, 'trace.mmiocap'))).toBe(true);
  });
});

test('`lab new` writes a scenario that `lab check` finds right, and writes over none', async () => {
  const made = await place.cli(['lab', 'new', 'nic']);
  expect([made.status, made.stdout]).toEqual([
    0,
    'nic.yaml and lab.schema.json, which editors read\n',
  ]);
  const check = await place.cli(['lab', 'check', 'nic.yaml']);
  expect(check.stdout).toMatch(
    /^nic: 7 steps, at most 600 s\n {2}1 {2}start +start, at most 330 s$/m,
  );
  expect(check.status).toBe(0);
  const again = await place.cli(['lab', 'new', 'nic']);
  expect(again.stderr).toContain('nic.yaml is there already');
  expect(again.status).toBe(1);
  const wrong = await place.cli(['lab', 'run', 'nic.yaml', '--set', 'nothing=1']);
  expect(wrong.stderr).toContain('nic.yaml has no variable nothing');
  expect(wrong.status).toBe(2);
  expect(existsSync(place.path('lab-runs'))).toBe(false);
});
