import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { startCli, type CliProcess } from './cli.ts';
import { PATIENCE_MS } from './soon.ts';

const CHROMIUM = '/usr/bin/chromium';
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A page in Debian's Chromium, and all that it complained of or asked others for. */
export interface Opened extends AsyncDisposable {
  readonly page: Page;
  readonly context: BrowserContext;
  /** Errors and warnings of the console, exceptions, requests to other hosts. */
  readonly complaints: string[];
}

/** Throws, with what to install, where there is no Chromium. */
export async function openPage(
  url: string,
  options: { readonly width?: number; readonly dark?: boolean } = {},
): Promise<Opened> {
  const profile = mkdtempSync(join(tmpdir(), 'mmiobridge-browser-'));
  const context = await chromium
    .launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      args: ARGS,
      viewport: { width: options.width ?? 1366, height: 768 },
      colorScheme: options.dark === true ? 'dark' : 'light',
      acceptDownloads: true,
    })
    .catch((error: unknown) => {
      throw new Error(`${CHROMIUM} does not start: qemu-scripts/setup.sh --tests installs it`, {
        cause: error,
      });
    });
  context.setDefaultTimeout(PATIENCE_MS);
  const complaints: string[] = [];
  const own = new URL(url).host;
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  context.on('request', (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol !== 'data:' && protocol !== 'blob:' && host !== own) {
      complaints.push(`request to ${request.url()}`);
    }
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.on('console', (message) => {
    const type = message.type();
    if (type === 'error' || type === 'warning') complaints.push(`${type}: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.goto(url);
  return {
    page,
    context,
    complaints,
    async [Symbol.asyncDispose]() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

export interface Viewed extends AsyncDisposable {
  readonly url: string;
  readonly process: CliProcess;
}

/** `mmiobridge view`, until disposed of. */
export async function startView(
  path: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Viewed> {
  const process = startCli(['view', path], { env });
  const url = await addressOf(process, () => process.stdout());
  return { url, process, [Symbol.asyncDispose]: () => process.kill() };
}

/** The address of a page, as soon as the program has said it. */
export async function addressOf(process: CliProcess, said: () => string): Promise<string> {
  let ended = false;
  void process.exited.then(() => (ended = true));
  for (;;) {
    const url = /http:\/\/127\.0\.0\.1:\d+\/#\w+/.exec(said())?.[0];
    if (url !== undefined) return url;
    if (ended) throw new Error(`it ended without a page: ${process.stderr()}`);
    await delay(20);
  }
}

/** What the list shows, a line a row: place, op, register, value. */
export function shownRows(page: Page): Promise<string[]> {
  return page
    .locator('.rows .row')
    .evaluateAll((rows) =>
      rows.map((row) =>
        ['.c-number', '.c-op', '.c-register', '.c-value']
          .map((cell) => row.querySelector(cell)?.textContent ?? '')
          .join(' '),
      ),
    );
}

/** Waits until the server has looked at everything, and the list has so many accesses. */
export async function waitForMatches(page: Page, text: string): Promise<void> {
  await page.locator(`#matches[data-done=true] b:text-is("${text}")`).waitFor();
}
