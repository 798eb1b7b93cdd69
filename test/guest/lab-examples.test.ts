import { copyFileSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MAIN, start, type CliProcess, type CliResult } from '../support/cli.ts';
import { LabPlace } from '../support/lab-runs.ts';
import { scriptLines } from '../support/scripts.ts';
import { until } from '../support/soon.ts';

const EXAMPLES = fileURLToPath(new URL('../../docs/examples/', import.meta.url));

let set: string[];
let place: LabPlace;
beforeAll(async () => {
  const [kernel = '', initrd = ''] = await scriptLines('guests/agent.sh');
  set = ['--set', `kernel=${kernel}`, '--set', `initrd=${initrd}`];
});
beforeEach(() => {
  place = new LabPlace();
  for (const name of readdirSync(EXAMPLES)) copyFileSync(join(EXAMPLES, name), place.path(name));
});
afterEach(() => place[Symbol.asyncDispose]());

function expectPassed({ status, stderr }: CliResult): void {
  expect(stderr).toMatch(/^passed$/m);
  expect(status, stderr).toBe(0);
}

function accessesOf(name: string): number {
  return place.manifest.steps.find((step) => step.name === name)?.accesses ?? NaN;
}

describe('the examples of the documentation', () => {
  test('pxe-e1000', async () => {
    expectPassed(await place.run('pxe-e1000.yaml'));
    expect(place.manifest.steps.at(-1)?.detail).toMatch(/^read nic0 BAR0\+0x8 = 0x/);
  });

  test('nvme: what is read shows between its marks, and more of it where more is read', async () => {
    const reads: number[] = [];
    for (const count of [4, 8]) {
      expectPassed(await place.run('nvme.yaml', ...set, '--set', `count=${count}`));
      // Its probe goes on when the module is loaded.
      const probe = ['load', 'the controller is enabled', 'wait-quiet'].map(accessesOf);
      expect(probe.reduce((sum, n) => sum + n)).toBeGreaterThan(100);
      reads.push(accessesOf('read'));
    }
    // A submission and a completion doorbell for each block.
    expect((reads[1] ?? 0) - (reads[0] ?? 0)).toBe(8);
    const text = readFileSync(join(place.folder, 'trace.mmiotrace'), 'latin1');
    expect(text).toMatch(/^MARK \S+ guest: read 8 blocks \(guest clock \d+\.\d+\)$/m);
  });

  test('hotplug-e1000e', async () => {
    expectPassed(await place.run('hotplug-e1000e.yaml', ...set));
    expect(place.manifest.devices).toHaveLength(1);
  });

  test.each(['windows-driver.yaml', 'passthrough.yaml'])(
    '%s is right, as far as it can be told',
    async (name) => {
      const { status, stdout } = await place.cli(['lab', 'check', name]);
      expect(stdout).toMatch(/bind 0000:\d\d:\d\d\.0, and give it back/);
      expect(status).toBe(0);
    },
  );
});

describe('on a terminal', () => {
  test('a line shows the step, for how long, and what the recording is doing', async () => {
    place.scenario(
      'slow.yaml',
      `
- start:
    qemu: qemu-system-x86_64 -machine pc -accel tcg -m 64 -nodefaults -display none -device e1000,netdev=n,id=dut -netdev user,id=n
    record: { device: dut }
- name: for ever
  wait: 1h`,
    );
    const socket = place.path('tmux');
    const begin = (...args: string[]): CliProcess =>
      start('tmux', ['-S', socket, '-f', '/dev/null', ...args]);
    const tmux = async (...args: string[]) => {
      const one = begin(...args);
      await one.exited;
      await one.kill();
      return one.stdout();
    };
    const line = `MMIOBRIDGE_RUN=${place.runDir} ${process.execPath} ${MAIN} lab run slow.yaml; echo $? > status; sleep 100`;
    // Its server outlives who starts it.
    const server = begin('new-session', '-d', '-x', '120', '-y', '12', '-c', place.dir, line);
    await server.exited;
    const screen = async () =>
      Buffer.from(await tmux('capture-pane', '-p'), 'latin1').toString('utf8');
    try {
      let seen = '';
      await until(
        () => seen,
        async () => {
          seen = await screen();
          return /2\/2 {2}for ever {2}[\d.]+ s of .* \| {2}[\d,]{5,} accesses {2}[\d,]+\/s/.test(
            seen,
          );
        },
      );
      expect(seen).toMatch(/^00:\d\d\.\d {2}1\/2 {2}start +ok /m);
      await tmux('send-keys', 'C-c');
      await until(
        () => seen,
        async () => (seen = await screen()).includes('interrupted: interrupted by SIGINT'),
      );
      expect(place.manifest).toMatchObject({
        result: 'interrupted',
        recording: { complete: true },
      });
    } finally {
      await tmux('kill-server');
      await server.kill();
    }
  });
});
