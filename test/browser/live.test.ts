import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { addressOf, openPage, shownRows, waitForMatches } from '../support/browser.ts';
import { startCli, Workplace } from '../support/cli.ts';
import { demoGuest } from '../support/guests.ts';

test('a recording of the demo guest appears while it runs, and takes a mark', async () => {
  await using place = new Workplace();
  const capture = place.path('demo.mmiocap');
  const record = startCli(
    ['record', '--live', '--keep-page', '--device', 'dut', '-o', capture, '--', ...demoGuest()],
    { env: { MMIOBRIDGE_RUN: place.runDir } },
  );
  try {
    const url = await addressOf(record, () => record.stderr());
    await using opened = await openPage(url);
    const { page } = opened;
    await page.locator('#state:text-is("recording")').waitFor();
    await page.locator('.rows .c-op').first().waitFor();
    await expect
      .poll(async () => (await shownRows(page))[0])
      .toMatch(/^1 R BAR0\+0x0 0x[0-9a-f]{8}$/);
    // It grows by itself.
    const counted = async (): Promise<number> =>
      Number((await page.locator('#accesses').textContent())?.replaceAll(',', ''));
    const before = await counted();
    await expect.poll(counted).toBeGreaterThan(before);
    await expect.poll(() => page.locator('#rate').textContent()).toMatch(/\/s$/);

    await page.keyboard.press('m');
    await page.keyboard.type('link “up” <b>');
    await page.keyboard.press('Enter');
    await page
      .locator('#marks option', { hasText: 'link “up” <b>' })
      .waitFor({ state: 'attached' });

    const status = await place.cli(['status', '--json']);
    const [running] = JSON.parse(status.stdout) as { status: { qemuPid: number } }[];
    process.kill(running?.status.qemuPid ?? NaN, 'SIGTERM');
    await page.locator('#state:text-is("finished")').waitFor();
    const { stdout } = await place.cli([
      'convert',
      'demo.mmiocap',
      '--format',
      'mmiotrace',
      '-o',
      '-',
    ]);
    expect(stdout).toMatch(/^MARK \S+ link \?up\? <b>$/m);
    const accesses = stdout
      .split('\n')
      .filter((line) => /^[RW] |^MARK \S+ mmiobridge: pio /.test(line));
    await waitForMatches(page, accesses.length.toLocaleString('en-US'));
    await expect.poll(() => page.locator('#coverage').textContent()).toBe('all trapped');

    await page.keyboard.press('d');
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('#download-mmiotrace-all').click(),
    ]);
    expect(readFileSync(await download.path(), 'latin1')).toBe(stdout);
    expect(opened.complaints).toEqual([]);

    // It stays until it is told to end.
    record.child.kill('SIGINT');
    expect((await record.exited).status).toBe(0);
    expect(record.stderr()).not.toContain('page:');
    await page.locator('#state:text-matches("^the program has ended")').waitFor();
  } finally {
    await record.kill();
  }
});

test('view shows a capture that another process records', async () => {
  await using place = new Workplace();
  const capture = place.path('demo.mmiocap');
  const env = { MMIOBRIDGE_RUN: place.runDir };
  const guest = demoGuest();
  const record = startCli(['record', '--device', 'dut', '-o', capture, '--', ...guest], { env });
  try {
    while (!record.stderr().includes('recording '))
      await new Promise((done) => setTimeout(done, 50));
    const started = startCli(['view', capture], { env });
    try {
      const url = await addressOf(started, () => started.stdout());
      await using opened = await openPage(url);
      const { page } = opened;
      await page.locator('#state:text-is("recording")').waitFor();
      await page.locator('.rows .c-op').first().waitFor();
      record.child.kill('SIGINT');
      await page.locator('#state:text-is("finished")').waitFor();
      expect(opened.complaints).toEqual([]);
    } finally {
      await started.kill();
    }
  } finally {
    await record.kill();
  }
});
