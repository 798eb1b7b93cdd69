import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Manifest, StepReport } from '../../src/lab/run/manifest.ts';
import { readPng } from '../../src/lab/machine/picture.ts';
import { STEP_KINDS } from '../../src/lab/steps/index.ts';
import type { CliResult } from '../support/cli.ts';
import { agentGuest, E1000E, emptyQcow2, LabPlace } from '../support/lab-runs.ts';

/** Every kind of step, in one boot of Debian's kernel. */
const SCENARIO = fileURLToPath(new URL('lab-steps.yaml', import.meta.url));

describe('every kind of step', () => {
  let place: LabPlace;
  let result: CliResult;
  let manifest: Manifest;
  const step = (name: string): StepReport => {
    const found = manifest.steps.find((each) => each.name === name);
    if (found === undefined) throw new Error(`there is no step ${name}`);
    return found;
  };
  const output = (name: string, file = 'stdout') => {
    const path = step(name).files.find((each) => each.endsWith(`/${file}`)) ?? '';
    return readFileSync(join(place.folder, path), 'latin1');
  };

  beforeAll(async () => {
    place = new LabPlace();
    const blob = Buffer.from(Array.from({ length: 600_000 }, (_, at) => (at * 31) % 253));
    writeFileSync(place.path('blob'), blob);
    writeFileSync(place.path('disk.qcow2'), emptyQcow2(2 ** 28));
    const { PNG } = await import('pngjs');
    const known = new PNG({ width: 720, height: 400 });
    known.data.fill(0);
    writeFileSync(place.path('known.png'), PNG.sync.write(known));
    copyFileSync(SCENARIO, place.path('all.yaml'));
    const qemu = `qemu=${await agentGuest(E1000E)}`;
    result = await place.run('all.yaml', '--allow-host-commands', '--set', qemu);
    if (result.status === 2) throw new Error(result.stderr);
    manifest = place.manifest;
  });
  afterAll(() => place[Symbol.asyncDispose]());

  test('is taken, and passes', () => {
    const notPassed = manifest.steps
      .filter((each) => each.result !== 'passed')
      .map(({ name, result: how, failure }) => ({ name, how, failure }));
    expect(notPassed).toEqual([]);
    expect(manifest).toMatchObject({ result: 'passed', reason: null, left: [] });
    expect(result.status, result.stderr).toBe(0);
  });

  test('none is left out', () => {
    const taken = new Set(manifest.steps.map(({ kind }) => kind));
    const left = STEP_KINDS.map(({ name }) => name).filter((name) => !taken.has(name));
    // Has a file of tests of its own.
    expect(left).toEqual(['attach']);
  });

  test('waits name what came', () => {
    expect(step('the driver writes').detail).toMatch(/^write dut BAR0\+0x0 = 0x[0-9a-f]+$/);
    expect(step('wait-agent').detail).toMatch(/^qemu-guest-agent \d/);
  });

  test('marks stand in the text: those of steps, of the guest with its clock, of a register', () => {
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    const marks = [...text.matchAll(/^MARK \S+ (.*)$/gm)]
      .map(([, mark = '']) => mark)
      .filter((mark) => !mark.startsWith('mmiobridge: '));
    const names = manifest.steps
      .filter(({ kind }) => kind !== 'stop-recording')
      .map(({ name }) => name);
    expect(marks.filter((mark) => names.includes(mark))).toEqual(names);
    expect(marks.join('\n')).toMatch(/^guest: one two three \(guest clock \d{10}\.\d{6}\)$/m);
    expect(marks).toContain('guest: 0x5a (dut config+0x3c)');
  });

  test('each knows its place in the recording', () => {
    const rows = manifest.steps.map(({ place: at }) => at?.row ?? NaN).filter(Number.isFinite);
    // The VM has ended by itself, and with it the recording, at the latest when that is read.
    const placed = manifest.steps.filter(({ kind, place: at }) => kind !== 'stop-recording' || at);
    expect(rows.length).toBe(placed.length);
    expect(rows).toEqual(rows.toSorted((a, b) => a - b));
    const total = manifest.steps.reduce((sum, { accesses }) => sum + (accesses ?? 0), 0);
    expect(total + (rows[0] ?? 0)).toBe(manifest.recording?.accesses);
    expect(step('load').accesses).toBeGreaterThan(100);
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    const before = text.slice(0, text.indexOf(' the driver is loaded\n'));
    // Accesses to configuration space of an emulated device are in no log.
    expect([...before.matchAll(/^[RW] /gm)]).toHaveLength(
      step('the driver is loaded').place?.row ?? 0,
    );
  });

  test('a program has its environment and input, and its outputs are kept', () => {
    expect(output('environment and input')).toBe('hello\nfrom the host\n');
  });

  test('files come into the guest, and out of it, as they are', () => {
    const [sum = ''] = execFileSync('sha256sum', [place.path('blob')], { encoding: 'utf8' }).split(
      ' ',
    );
    expect(output('sum')).toContain(sum);
    const back = readFileSync(join(place.folder, 'files/back'));
    expect(back.equals(readFileSync(place.path('blob')))).toBe(true);
  });

  test('keys and clicks come to the guest', () => {
    const came = output('what came');
    expect(came).toContain('typed_it');
    // struct input_event of linux/input.h: BTN_LEFT is 0x110, ABS_X and ABS_Y are of type 3.
    expect(came).toContain(' 0001 0110 0001 0000 ');
    expect(came).toMatch(/ 0003 0000 [0-9a-f]{4} 0000 /);
  });

  test('pictures are PNG', async () => {
    const { width, height } = await readPng(join(place.folder, step('screendump').files[0] ?? ''));
    expect(step('screendump').detail).toContain(`${width} × ${height}`);
    expect(width).toBeGreaterThan(300);
  });

  test('QMP is answered', () => {
    expect(output('paused', 'answer.json')).toContain('"status": "paused"');
    expect(output('media', 'answer.json')).toContain(place.path('blob'));
  });

  test('a device that was plugged in again is recorded', () => {
    expect(step('the driver starts anew').accesses).not.toBeNull();
    expect(manifest.devices.find(({ name }) => name === 'dut')).toMatchObject({
      ids: '8086:10d3',
      qemuId: 'dut',
      guestAddress: '00:10.0',
      options: 'e1000e,netdev=n,id=dut,addr=10',
    });
  });

  test('commands of the host run beside the scenario, and know the folder', () => {
    expect(output('host-run')).toBe(`${place.folder}\n${place.dir}\n`);
  });

  test('the folder says how it came about', () => {
    expect(manifest).toMatchObject({
      version: 1,
      scenario: { name: 'all', variables: { here: place.dir } },
      qemu: { started: true, exit: { code: 0, signal: null } },
      snapshots: ['saved here', 'loaded here'],
      recording: { complete: true, outputs: ['trace.mmiocap', 'trace.mmiotrace'] },
    });
    expect(manifest.disks.map(({ path }) => path)).toContain(place.path('disk.qcow2'));
    expect(manifest.disks.every(({ sha256 }) => sha256 !== null)).toBe(true);
    expect(manifest.qemu?.argv.join(' ')).toContain('org.mmiobridge.mark');
    for (const name of ['scenario.yaml', 'junit.xml', 'serial/console.log', 'serial/marks.log']) {
      expect(existsSync(join(place.folder, name)), name).toBe(true);
    }
    expect(readFileSync(join(place.folder, 'junit.xml'), 'utf8')).toContain(
      `tests="${manifest.steps.length}" failures="0"`,
    );
  });
});

describe('marks of the guest', () => {
  test.each([
    [
      'serial',
      'marks: serial',
      'MMIOBRIDGE_MARK_PORT=/dev/ttyS1 mark it is loaded; stty -F /dev/ttyS1 raw',
    ],
    [
      'its agent',
      'marks: { file: /run/marks }',
      'MMIOBRIDGE_MARK_FILE=/run/marks mark it is loaded',
    ],
  ])('come through %s, too', async (_, marks, command) => {
    await using place = new LabPlace();
    const qemu = await agentGuest(E1000E);
    place.scenario(
      'marks.yaml',
      `
- start:
    qemu: '${qemu.replaceAll("'", "''")}'
    agent: true
    serial: [console]
    ${marks}
    record: { device: dut }
- wait-serial: guest is ready
- guest-run: ${command}`,
    );
    const result = await place.run('marks.yaml');
    expect(result.status, result.stderr).toBe(0);
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    expect(text).toMatch(/^MARK \S+ guest: it is loaded \(guest clock \d{10}\.\d{6}\)$/m);
  });
});
