import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeBigCapture } from '../support/big-capture.ts';
import {
  openPage,
  shownRows,
  startView,
  waitForMatches,
  type Opened,
  type Viewed,
} from '../support/browser.ts';
import { Workplace } from '../support/cli.ts';

// Its accesses repeat: see support/big-capture.ts.
const ROWS = 5_000_000;

let place: Workplace;
let view: Viewed;
let opened: Opened;

beforeAll(async () => {
  place = new Workplace();
  await writeBigCapture(place.path('big.mmiocap'), { rows: ROWS });
  view = await startView(place.path('big.mmiocap'));
  opened = await openPage(view.url);
  await waitForMatches(opened.page, '5,000,000');
});

afterAll(async () => {
  await opened[Symbol.asyncDispose]();
  await view[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

/** Everything again, as after opening. */
async function reset(): Promise<void> {
  const { page } = opened;
  await page.keyboard.press('Escape');
  await page.locator('#filter').fill('');
  await page.locator('#list').focus();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');
  await waitForMatches(page, '5,000,000');
  await page.keyboard.press('Home');
}

describe('a finished capture of 5 million accesses', () => {
  test('shows at a glance what it is and what is missing', async () => {
    const { page } = opened;
    await expect.poll(() => page.locator('#state').textContent()).toBe('finished, incomplete');
    await expect.poll(() => page.locator('#accesses').textContent()).toBe('5,000,000');
    await expect.poll(() => page.locator('#loss').textContent()).toBe('nothing lost');
    await expect.poll(() => page.locator('#coverage').textContent()).toBe('bypassed: BAR2');
    await page.locator('#coverage').click();
    await expect
      .poll(() => page.locator('#coverage-table').textContent())
      .toContain('mtree shows a RAM region');
    await page.keyboard.press('Escape');
  });

  test('scrolls from end to end', async () => {
    await reset();
    const { page } = opened;
    await expect.poll(async () => (await shownRows(page))[0]).toBe('1 R BAR0+0xc0 0x80000003');
    await page.locator('#list').focus();
    await page.keyboard.press('End');
    await page.locator('.c-number:text-is("5,000,000")').waitFor();
    await page.locator('#list').evaluate((list) => {
      list.scrollTop = list.scrollHeight / 2;
    });
    await page
      .locator('.c-number:text-matches("^2,49\\\\d,\\\\d+|^2,50\\\\d,\\\\d+")')
      .first()
      .waitFor();
    const before = Number((await shownRows(page))[0]?.split(' ')[0]?.replaceAll(',', ''));
    await page.mouse.move(800, 500);
    await page.mouse.wheel(0, 60);
    const after = (before + 3).toLocaleString('en-US');
    await page.locator(`.c-number:text-is("${after}")`).first().waitFor();
    await expect.poll(async () => (await shownRows(page))[0]?.split(' ')[0]).toBe(after);
  });

  test('shows the bits that changed since the last value of the register', async () => {
    await reset();
    const { page } = opened;
    await page.locator('#filter').fill('bar0+0xc0 value=0x8000000b,0x8');
    await waitForMatches(page, '96,152');
    // The read that ends the loop, and the write that acknowledges it; what lies between is not shown.
    const bits = page.locator('.rows .c-bits');
    await expect
      .poll(async () => (await bits.allTextContents()).slice(0, 2))
      .toEqual(['+3', '−0–1,31']);
  });

  test('filters, and says where a filter cannot be read', async () => {
    await reset();
    const { page } = opened;
    await page.locator('#filter').fill('write offset=0x400');
    await page.locator('.rows .c-register:text-is("BAR0+0x400")').first().waitFor();
    const others = async () =>
      (await shownRows(page)).filter((row) => !row.includes(' W BAR0+0x400 '));
    await expect.poll(others).toEqual([]);
    await page.locator('#filter').fill('write ofset=0x400');
    const error = page.locator('#filter-error');
    await error.waitFor();
    await expect.poll(() => error.textContent()).toContain('nothing is called “ofset”');
    await expect.poll(() => error.locator('mark').textContent()).toBe('ofset=0x400');
  });

  test('a span that is dragged on the timeline holds for all below', async () => {
    await reset();
    const { page } = opened;
    const plot = await page.locator('.u-over').boundingBox();
    if (plot === null) throw new Error('there is no timeline');
    const y = plot.y + plot.height / 2;
    await page.mouse.move(plot.x + plot.width / 4, y);
    await page.mouse.down();
    await page.mouse.move(plot.x + plot.width / 2, y, { steps: 5 });
    await page.mouse.up();
    await page.locator('#span').waitFor();
    await page.locator('#matches[data-done=true]').waitFor();
    await expect
      .poll(async () =>
        Number((await page.locator('#matches b').textContent())?.replaceAll(',', '')),
      )
      .toBeLessThan(ROWS / 3);
    const first = async () => Number((await page.locator('.rows .c-time').allTextContents())[0]);
    await expect.poll(first).toBeGreaterThan(1);
    await expect.poll(first).toBeLessThan(1.5);
    // Registers were counted again, too.
    await expect
      .poll(() => page.locator('#busiest td.reads').first().textContent())
      .toMatch(/^1\.\d+M$/);
  });

  test('two marks select a span', async () => {
    await reset();
    const { page } = opened;
    await page.keyboard.press(']');
    await page.locator('#span').waitFor();
    const ends = async () => (await page.locator('#span').textContent())?.match(/\d+\.\d{6}/g);
    await expect.poll(ends).toHaveLength(2);
    const [from, to] = (await ends()) ?? [];
    const marks = async () => (await page.locator('#marks option').allTextContents()).slice(1);
    await expect.poll(marks).toEqual([`${from} driver loaded`, `${to} link up`]);
  });

  test('folds the poll loops of a register', async () => {
    await reset();
    const { page } = opened;
    await page.locator('#busiest button').first().click();
    await page.locator('#steps .poll').first().waitFor();
    await expect.poll(() => page.locator('#register h2').textContent()).toBe('BAR0+0xc0');
    const loop = page.locator('#steps li', { hasText: 'until' }).first();
    await expect
      .poll(() => loop.textContent())
      .toMatch(/^4\.9\d+Rread 101 times until bit 3 set, 100 µs0x8000000b$/);
    await expect.poll(() => page.locator('.who').textContent()).toMatch(/vCPU 0: .* R .* W/);
    // The click filtered, too; another one takes that back.
    await expect.poll(() => page.locator('#filter').inputValue()).toBe('bar0+0xc0');
    await page.locator('#busiest button').first().click();
    await expect.poll(() => page.locator('#filter').inputValue()).toBe('');
  });

  test('copies rows as the lines that convert writes', async () => {
    await reset();
    const { page } = opened;
    await page.locator('#list').focus();
    for (let row = 0; row < 102; row++) await page.keyboard.press('Shift+ArrowDown');
    await page.keyboard.press('Control+c');
    await page.locator('.notes p:text-matches("copied 103 lines")').waitFor();
    const copied = await page.evaluate('navigator.clipboard.readText()');
    const { stdout } = await place.cli([
      'convert',
      'big.mmiocap',
      '-o',
      '-',
      '--format',
      'mmiotrace',
    ]);
    const lines = stdout.split('\n').filter((line) => /^[RW] /.test(line));
    expect(copied).toBe(`${lines.slice(0, 103).join('\n')}\n`);
  });

  test.each(['mmiotrace', 'ndjson', 'capture'])(
    'downloads all as %s, as convert writes it',
    async (format) => {
      await reset();
      const { page } = opened;
      await page.keyboard.press('d');
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.locator(`#download-${format}-all`).click(),
      ]);
      await place.cli(['convert', 'big.mmiocap', '-o', 'converted', '--format', format]);
      const downloaded = readFileSync(await download.path());
      expect(downloaded.equals(readFileSync(place.path('converted')))).toBe(true);
      expect(download.suggestedFilename()).toMatch(/^big\.(?:mmiotrace|ndjson|mmiocap)$/);
    },
  );

  test('downloads a span: its accesses, and what they need from before', async () => {
    await reset();
    const { page } = opened;
    await page.keyboard.press(']');
    await page.locator('#span').waitFor();
    await page.keyboard.press('d');
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('#download-mmiotrace-span').click(),
    ]);
    const text = readFileSync(await download.path(), 'latin1');
    const all = (await place.cli(['convert', 'big.mmiocap', '-o', '-', '--format', 'mmiotrace']))
      .stdout;
    const accesses = (of: string): string[] => of.split('\n').filter((line) => /^[RW] /.test(line));
    const [from = 0, to = 0] = [...text.matchAll(/^MARK (\S+) driver loaded|^[RW] 4 (\S+)/gm)]
      .map((match) => Number(match[1] ?? match[2]))
      .filter((_, at, { length }) => at === 0 || at === length - 1);
    const inside = accesses(all).filter((line) => {
      const time = Number(line.split(' ')[2]);
      return time >= from && time <= to;
    });
    expect(inside.length).toBeGreaterThan(1_000_000);
    expect(accesses(text).join('\n')).toBe(inside.join('\n'));
    expect(text).toMatch(/^MAP 0\.000000 1 0xfebc0000 /m);
    expect(text).toContain('driver loaded');
    expect(text).not.toContain('link up');
  });

  test('can be used with the keyboard alone', async () => {
    await reset();
    const { page } = opened;
    await page.keyboard.press('/');
    await page.keyboard.type('write bar0+0x2800');
    await page.keyboard.press('Enter');
    await page.locator('.rows .c-register:text-is("BAR0+0x2800")').first().waitFor();
    await page.keyboard.press('Escape');
    await waitForMatches(page, '5,000,000');
    await page.keyboard.press('Escape');
    await page.keyboard.press('l');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.locator('#steps li').first().waitFor();
    await page.keyboard.press('f');
    await expect.poll(() => page.locator('#filter').inputValue()).toBe('bar0+0xc0');
    await page.keyboard.press('t');
    await page.keyboard.press('ArrowRight');
    await page.locator('#span').waitFor();
    await page.keyboard.press('ArrowRight');
    await expect
      .poll(() => page.locator('#span').textContent())
      .toBe('0.250000 – 0.750000 s (500 ms)');
    await page.keyboard.press('z');
    await page.locator('button:text-is("Whole")').waitFor();
    await page.keyboard.press('?');
    await page.locator('dialog[open] h2:text-is("Keys and filters")').waitFor();
    await page.keyboard.press('Escape');
    await page.locator('dialog').waitFor({ state: 'detached' });
  });

  test('complains of nothing and asks nobody else', () => {
    expect(opened.complaints).toEqual([]);
  });
});

test('text from a recording is never taken for HTML', async () => {
  const evil = '<img src=x onerror=document.title="owned">';
  await writeBigCapture(place.path('evil.mmiocap'), { rows: 1000, marks: [evil] });
  await using evilView = await startView(place.path('evil.mmiocap'));
  await using evilPage = await openPage(evilView.url, { dark: true });
  await waitForMatches(evilPage.page, '1,000');
  const marks = evilPage.page.locator('#marks option');
  await expect.poll(async () => (await marks.allTextContents())[1]).toContain(evil);
  await expect.poll(() => evilPage.page.title()).toBe('evil.mmiocap – mmiobridge');
  await expect.poll(() => evilPage.page.locator('img').count()).toBe(0);
  expect(evilPage.complaints).toEqual([]);
});

test('with the wrong token the page says what to do', async () => {
  await using wrong = await openPage(view.url.replace(/#.*/, '#wrong'));
  await wrong.page.locator('#state:text-matches("open the address")').waitFor();
  await expect.poll(() => wrong.page.locator('.rows .row').count()).toBe(0);
});
