import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openPage, type Opened } from '../support/browser.ts';
import { startCli, Workplace, type CliProcess } from '../support/cli.ts';
import { demoGuest, hammerGuest } from '../support/guests.ts';

// Two hosts, as it were: each has a run folder of its own.
let desk: Workplace;
let lab: Workplace;
let collector: CliProcess;
let opened: Opened;
const recorders: CliProcess[] = [];

const PAGE_TOKEN = 'ca5cade5'.repeat(4);
const BRIDGE_TOKEN = 'b0a710ad'.repeat(4);
const ENV = { MMIOBRIDGE_TOKEN: BRIDGE_TOKEN };

beforeAll(async () => {
  desk = new Workplace();
  lab = new Workplace();
  writeFileSync(desk.path('page-token'), `${PAGE_TOKEN}\n`, { mode: 0o600 });
  mkdirSync(desk.path('out'));
  const args = ['--live', '--live-token-file', desk.path('page-token')];
  const output = ['-o', desk.path('out/{device}.mmiocap'), '--state', desk.path('state')];
  collector = startCli(['listen', ...args, ...output, `unix:${desk.path('socket')}`], {
    env: { ...ENV, MMIOBRIDGE_RUN: desk.runDir },
  });
  for (let tries = 0; !collector.stderr().includes('behind it the token'); tries++) {
    if (tries > 500) throw new Error(`it does not listen: ${collector.stderr()}`);
    await delay(20);
  }
  const [address = ''] = /http:\S+#/.exec(collector.stderr()) ?? [];
  opened = await openPage(`${address}${PAGE_TOKEN}`);
});

afterAll(async () => {
  await opened[Symbol.asyncDispose]();
  for (const process of [...recorders, collector]) await process.kill();
  await lab[Symbol.asyncDispose]();
  await desk[Symbol.asyncDispose]();
});

function record(device: string, guest: readonly string[]): CliProcess {
  const to = ['--send-to', `unix:${desk.path('socket')}`];
  const started = startCli(['record', ...to, '--device', device, '--', ...guest], {
    env: { ...ENV, MMIOBRIDGE_RUN: lab.runDir },
  });
  recorders.push(started);
  return started;
}

test('a collector shows what comes from other hosts, and lets choose', async () => {
  const { page } = opened;
  await page.locator('h2:text-is("No recording has come yet")').waitFor();
  await expect.poll(() => page.locator('#state').textContent()).toBe('waiting');

  const first = record('dut', demoGuest());
  // The only one is shown by itself.
  await page.locator('#state:text-is("recording")').waitFor();
  await page.locator('.rows .c-op').first().waitFor();
  await expect.poll(() => page.locator('h1').textContent()).toBe('dut.mmiocap');

  // A mark goes to the host with the device, and comes back in the recording.
  await page.locator('#add-mark:enabled').waitFor();
  await page.keyboard.press('m');
  await page.keyboard.type('from the desk');
  await page.keyboard.press('Enter');
  await page.locator('#marks option', { hasText: 'from the desk' }).waitFor({ state: 'attached' });

  record('dut', await hammerGuest({ iterations: 0, pauseTurns: 40_000 }));
  await page.locator('#others', { hasText: '2 recordings' }).waitFor();
  await page.keyboard.press('o');
  const others = page.locator('dialog #recordings a');
  await others.nth(1).waitFor();
  await expect.poll(() => others.first().textContent()).toContain(`${hostname()} dut`);
  await expect.poll(() => others.first().textContent()).toContain('dut-2.mmiocap');
  // The last that came first, and it has the focus.
  await page.keyboard.press('Enter');
  await page.locator('.rows .c-register:text-is("BAR0+0x4")').first().waitFor();
  await page.locator('#state:text-is("recording")').waitFor();

  // A host that goes away is said to be away; the other recording goes on to its end.
  recorders[1]?.child.kill('SIGKILL');
  await page.locator('#state:text-matches("its host is away")').waitFor();
  await page.keyboard.press('o');
  await page.locator('dialog #recordings a', { hasText: 'dut.mmiocap' }).click();
  await page.locator('#state:text-is("recording")').waitFor();
  first.child.kill('SIGINT');
  await page.locator('#state:text-is("finished")').waitFor();
  await page.keyboard.press('d');
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.locator('#download-mmiotrace-all').click(),
  ]);
  const { stdout } = await desk.cli([
    'convert',
    'out/dut.mmiocap',
    '--format',
    'mmiotrace',
    '-o',
    '-',
  ]);
  expect(stdout).toMatch(/^MARK \S+ from the desk$/m);
  expect(readFileSync(await download.path(), 'latin1')).toBe(stdout);

  // Reloaded, it shows the same one.
  await page.reload();
  await page.locator('#state:text-is("finished")').waitFor();
  expect(opened.complaints).toEqual([]);
  for (const token of [PAGE_TOKEN, BRIDGE_TOKEN]) expect(collector.stderr()).not.toContain(token);
});
