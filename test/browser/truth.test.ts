/** What is missing, damaged or not known stands on the page as such. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Locator } from 'playwright-core';
import { Op } from '../../src/model/access-batch.ts';
import type { StreamItem } from '../../src/model/stream.ts';
import { v1 } from '../../src/wire/generated/mmiobridge.ts';
import { writeBigCapture } from '../support/big-capture.ts';
import {
  openPage,
  startView,
  waitForMatches,
  type Opened,
  type Viewed,
} from '../support/browser.ts';
import { captureOf, frameOffsets } from '../support/captures.ts';
import { startCli, Workplace } from '../support/cli.ts';
import {
  batchOf,
  SAMPLE_DEVICE,
  SAMPLE_EVENTS,
  type SampleAccess,
} from '../support/sample-session.ts';

const HEAD: readonly StreamItem[] = [
  { kind: 'device', timeNs: 0, device: SAMPLE_DEVICE },
  { ...SAMPLE_EVENTS.bar0, timeNs: 0 },
  { ...SAMPLE_EVENTS.map, timeNs: 0 },
];

let place: Workplace;
let view: Viewed | undefined;
let opened: Opened | undefined;
beforeEach(() => {
  place = new Workplace();
});
afterEach(async () => {
  await opened?.[Symbol.asyncDispose]();
  await view?.[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
  opened = undefined;
  view = undefined;
});

/** A page of a capture of these bytes. */
async function show(bytes: Uint8Array, before?: (opened: Opened) => Promise<void>) {
  writeFileSync(place.path('a.mmiocap'), bytes);
  view = await startView(place.path('a.mmiocap'));
  opened = await openPage(before === undefined ? view.url : 'about:blank');
  await before?.(opened);
  if (before !== undefined) await opened.page.goto(view.url);
  return opened.page;
}

const textOf = (locator: Locator) => locator.first().textContent();

test('a damaged place leads to where it is, and is drawn as a hole there', async () => {
  const path = place.path('whole.mmiocap');
  await writeBigCapture(path, { rows: 9000 });
  const capture = readFileSync(path);
  const batches = frameOffsets(capture).filter((at) => capture[at + 8] === 0x12);
  const [, damaged = 0] = batches;
  capture[damaged + 100]! ^= 1;
  const page = await show(capture);
  await expect
    .poll(() => textOf(page.locator('#loss')))
    .toBe('4,096 lost, in 1 place, 1 damaged place, not what it says');
  await page.locator('#state:text-is("finished, incomplete")').waitFor();
  // Whatever hides it.
  await page.locator('#filter').fill('write offset=0x400');
  await page.locator('.rows .c-register:text-is("BAR0+0x400")').first().waitFor();
  await page.locator('#loss').click();
  const [hole] = await page.locator('#holes li').allTextContents();
  // The time between the frames around it.
  expect(hole).toMatch(/^0\.004096 s: damaged within 4\.10 ms: capture: .*checksum/);
  const doubts = page.locator('#doubts');
  await expect.poll(() => textOf(doubts)).toMatch(/it tells of 8,828 reads, and has 4,810/);
  await page.locator('#holes button').first().click();
  await page.locator('.rows .row.hole').waitFor();
  await expect.poll(() => page.locator('#filter').inputValue()).toBe('');
  await expect.poll(() => textOf(page.locator('.row.hole .c-number'))).toBe('4,097');
  expect(await textOf(page.locator('.row.hole .hole-text'))).toMatch(/^damaged within 4\.10 ms/);
  expect(opened?.complaints).toEqual([]);
});

test('a loss leads to where it is; a recording without an end is cut off', async () => {
  const page = await show(
    await captureOf([
      ...HEAD,
      batchOf({ timeNs: 1000 }, { timeNs: 2000 }),
      { kind: 'loss', timeNs: 2500, count: 3120, durationNs: 1e6, reason: 'the spool was full' },
    ]),
  );
  await page.locator('#state:text-matches("^no end: cut off")').waitFor();
  await page.locator('#loss:text-is("3,120 lost, in 1 place")').waitFor();
  // Nothing is behind it.
  const text = page.locator('.row.hole.behind .hole-text');
  await expect
    .poll(() => textOf(text))
    .toBe('3,120 accesses are missing within 1.00 ms: the spool was full');
});

test('what a text says of itself is held against it, on the page and where it is served', async () => {
  const text = readFileSync(new URL('../golden/sample.mmiotrace', import.meta.url), 'latin1');
  const isAccess = (line: string) => /^[RW] /.test(line);
  const lines = text.split('\n');
  const without = lines.filter((line, at) => !isAccess(line) || at !== lines.findIndex(isAccess));
  writeFileSync(place.path('a.mmiotrace'), without.join('\n'));
  view = await startView(place.path('a.mmiotrace'));
  opened = await openPage(view.url);
  await opened.page.locator('#state:text-is("finished, incomplete")').waitFor();
  expect(view.process.stderr()).toMatch(
    /^the input is INCOMPLETE: it tells of .* accesses, and has /m,
  );
});

test('of values of different widths no bits are said to have changed', async () => {
  const rows: SampleAccess[] = [
    { op: Op.write, width: 4, value: 0xffff_ffffn },
    { width: 1, value: 0xffn },
    { width: 1, value: 0xfen },
    { width: 4, value: 0xfen },
  ];
  const page = await show(await captureOf([...HEAD, batchOf(...rows)]));
  const bits = page.locator('.rows .c-bits');
  await expect
    .poll(() => bits.allTextContents())
    .toEqual(['first', 'other width', '−0', 'other width']);
  // Nor in the history of the register, last first.
  await page.locator('.rows .row').first().click();
  const steps = page.locator('#steps li > span:last-child');
  await expect
    .poll(() => steps.allTextContents())
    .toEqual(['0x000000fe', '0xfe −0', '0xff', '0xffffffff']);
});

test('registers that are not drawn are counted, and what is in no region', async () => {
  const registers = Array.from({ length: 5000 }, (_, at) => ({ offset: at * 0x100 }));
  const stray = { region: 7, offset: 4 };
  const page = await show(
    await captureOf([...HEAD, batchOf(...registers, ...registers.slice(4000), stray)]),
  );
  const notes = page.locator('.map .not-drawn');
  await expect
    .poll(() => notes.allTextContents())
    .toEqual([
      'not drawn: 4,600 registers, 5,600 accesses',
      'region 7, of which nothing was told: 1 access',
    ]);
  await expect.poll(() => textOf(page.locator('.region h3 small'))).toMatch(/ · 6,000$/);
});

test('a filter that names what is not there says so', async () => {
  const page = await show(await captureOf([...HEAD, batchOf({})]));
  await waitForMatches(page, '1');
  const unknown = page.locator('#filter-unknown');
  for (const [filter, said] of [
    ['device=nic7', 'there is no device “nic7”; there is nic0'],
    ['not bar3+0x4', 'there is no region “bar3”; there is BAR0'],
    ['bar=2,0', 'there is no BAR 2; there is BAR0'],
  ] as const) {
    await page.locator('#filter').fill(filter);
    await expect.poll(() => textOf(unknown)).toBe(said);
  }
  await page.locator('#filter').fill('device=nic0 bar0');
  await unknown.waitFor({ state: 'detached' });
});

test('copying says how much of what was selected it has copied', async () => {
  await writeBigCapture(place.path('big.mmiocap'), { rows: 12_000 });
  const page = await show(readFileSync(place.path('big.mmiocap')));
  await waitForMatches(page, '12,000');
  await page.locator('#list').focus();
  await page.keyboard.press('Shift+End');
  await page.keyboard.press('Control+c');
  const note = page.locator('.notes p.bad');
  await expect
    .poll(() => textOf(note))
    .toBe('copied the first 10,000 lines of mmiotrace text only, of 12,000: download the rest');
  const copied = (await page.evaluate('navigator.clipboard.readText()')) as string;
  expect(copied.split('\n')).toHaveLength(10_001);
});

/** In the page: how much of the timeline has the colour of a mark. */
const PIXELS_OF_MARKS = `(() => {
  const canvas = document.querySelector('.plot canvas');
  const color = getComputedStyle(document.documentElement).getPropertyValue('--mark').trim();
  const wanted = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let pixels = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (wanted.every((part, of) => data[at + of] === part)) pixels++;
  }
  return pixels;
})()`;

test('a mark that is set while the device is quiet stands at its time', async () => {
  const begun = await captureOf([...HEAD, batchOf({ timeNs: 1e6 }, { timeNs: 2e6 })]);
  const mark: StreamItem = { kind: 'mark', timeNs: 5e9, text: 'lid closed' };
  const page = await show(begun);
  await waitForMatches(page, '2');
  const whole = await captureOf([...HEAD, batchOf({ timeNs: 1e6 }, { timeNs: 2e6 }), mark]);
  expect(whole.subarray(0, begun.length).equals(begun)).toBe(true);
  appendFileSync(place.path('a.mmiocap'), whole.subarray(begun.length));
  await page.locator('#marks option', { hasText: 'lid closed' }).waitFor({ state: 'attached' });
  // Its flag is drawn: there is some of its colour.
  const drawn = () => page.evaluate<number>(PIXELS_OF_MARKS);
  await expect.poll(drawn).toBeGreaterThan(50);
});

test('while the file is still being read nothing is called cut off, lost or unknown', async () => {
  const bytes = await captureOf([...HEAD, batchOf({}, {})]);
  const page = await show(bytes, ({ page: blank }) =>
    // As if half of it were to come.
    blank.routeWebSocket(/\/ws/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((message) => {
        if (typeof message === 'string') return;
        const said = v1.ServerMessage.decode(message);
        if (said.summary) said.summary.bytes = 2 * bytes.length;
        socket.send(Buffer.from(v1.ServerMessage.encode(said).finish()));
      });
    }),
  );
  await waitForMatches(page, '2');
  await page.locator('#state:text-is("reading")').waitFor();
  await page.locator('#loss:text-is("nothing lost so far")').waitFor();
  await page.locator('#coverage:text-is("coverage not read yet")').waitFor();
  await page.locator('#filter').fill('device=nic7');
  await waitForMatches(page, '0');
  expect(await page.locator('#filter-unknown').count()).toBe(0);
});

describe('a server', () => {
  test('that ends says so; one that is killed has gone; another one is another one', async () => {
    const page = await show(await captureOf([...HEAD, batchOf({})]));
    const state = page.locator('#state');
    await waitForMatches(page, '1');
    view?.process.child.kill('SIGINT');
    await expect
      .poll(() => textOf(state))
      .toBe('the program has ended; what is here is from before');
    // What was there can still be looked at.
    await waitForMatches(page, '1');
    const port = new URL(view?.url ?? '').port;
    const again = startCli(['view', place.path('a.mmiocap'), '--port', port]);
    try {
      await expect
        .poll(() => textOf(state))
        .toBe('refused: the program was started anew; open the address that the program printed');
    } finally {
      await again.kill();
    }
  });

  test('that is killed is not there any more', async () => {
    const page = await show(await captureOf([...HEAD, batchOf({})]));
    await waitForMatches(page, '1');
    view?.process.child.kill('SIGKILL');
    await expect
      .poll(() => textOf(page.locator('#state')))
      .toBe('connection lost, trying again; what is here is from before');
  });

  test('that was started anew, with other recordings', async () => {
    writeFileSync(place.path('a.mmiocap'), await captureOf([...HEAD, batchOf({}, {})]));
    const serve = async (id: string, port: number) => {
      // The built one has the page.
      const built = (name: string) =>
        import(new URL(`../../dist/server/${name}.js`, import.meta.url).href);
      const { servePage } = (await built('serve')) as typeof import('../../src/server/serve.ts');
      const { Recordings } = (await built(
        'recordings',
      )) as typeof import('../../src/server/recordings.ts');
      const recordings = new Recordings(() => undefined);
      const link = { status: async () => undefined, mark: async () => undefined };
      const path = place.path('a.mmiocap');
      recordings.put({ id, path, name: id, state: 'finished', link });
      return servePage({ recordings, port, token: 'token', log: () => undefined });
    };
    const first = await serve('one', 0);
    opened = await openPage(first.url);
    const { page } = opened;
    await expect.poll(() => page.title()).toMatch(/^one/);
    await first.close();
    const second = await serve('two', first.port);
    try {
      await expect.poll(() => page.title()).toMatch(/^two/);
      await waitForMatches(page, '2');
      await expect
        .poll(() => page.locator('.notes').textContent())
        .toContain('the server was started anew; it does not have the recording that was shown');
    } finally {
      await second.close();
    }
  });
});
