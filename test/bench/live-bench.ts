import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/server/serve.ts';
import { v1 } from '../../src/wire/generated/mmiobridge.ts';
import { writeBigCapture } from '../support/big-capture.ts';
import { openPage, startView } from '../support/browser.ts';
import { spanOf } from './capture-span.ts';
import { hammerGuest } from '../support/guests.ts';
import { median, MMIOBRIDGE } from './run.ts';
import { printTable } from './table.ts';

const WEB = fileURLToPath(new URL('../../dist/web/', import.meta.url));
const VISIBLE_ROWS = 40;

/** What watching costs a recording, how large the page is, and how soon it shows something. */
export async function benchLive(dir: string, quick: boolean): Promise<void> {
  const millions = quick ? 1 : 4;
  const ways: [string, Watchers | undefined][] = [
    ['record -o X.mmiocap', undefined],
    ['--live, nobody watches', { reading: 0, stalled: 0 }],
    ['--live, 1 watches', { reading: 1, stalled: 0 }],
    ['--live, 20 watch, one of them stalled', { reading: 19, stalled: 1 }],
  ];
  const rates = ways.map((): number[] => []);
  const guestRates = ways.map((): number[] => []);
  for (let round = 0; round < (quick ? 1 : 3); round++) {
    for (const [index, [, watchers]] of ways.entries()) {
      const { rate, guestRate } = await once(dir, watchers, millions);
      rates[index]?.push(rate);
      guestRates[index]?.push(guestRate);
    }
  }
  const base = median(rates[0] ?? []);
  const thousands = (values: readonly number[] | undefined) =>
    `${Math.round(median(values ?? []) / 1000)} thousand/s`;
  printTable(
    `live: ${millions} million accesses (TCG, edu; guest, recorder, page and watchers share the cores): the whole command; then the guest's own rate by QEMU's stamps; median`,
    ways.map(([name], index) => [
      name,
      thousands(rates[index]),
      `${(median(rates[index] ?? []) / base).toFixed(2)} of unwatched`,
      thousands(guestRates[index]),
    ]),
  );
  printTable('live: the page, as it is sent', bundleRows());
  printTable('live: a capture in Chromium, median of 3', await firstRows(dir, quick ? 1 : 5));
}

interface Watchers {
  readonly reading: number;
  readonly stalled: number;
}

async function once(dir: string, watchers: Watchers | undefined, millions: number) {
  const folder = join(dir, 'live');
  mkdirSync(folder, { recursive: true });
  const out = join(folder, 'x.mmiocap');
  const guest = await hammerGuest({ iterations: millions * 500_000 });
  const [program = '', ...main] = MMIOBRIDGE;
  const live = watchers === undefined ? [] : ['--live'];
  const args = [...main, 'record', ...live, '--device', 'dut', '-o', out, '--', ...guest];
  const began = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const sockets: WebSocket[] = [];
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    const [, port, token] = /http:\/\/127\.0\.0\.1:(\d+)\/#(\w+)/.exec(said) ?? [];
    if (sockets.length > 0 || watchers === undefined || token === undefined) return;
    for (let n = 0; n < watchers.reading + watchers.stalled; n++) {
      sockets.push(watch(`ws://127.0.0.1:${port}/ws`, token, n >= watchers.reading));
    }
  });
  const status = await new Promise((resolve) => child.once('exit', resolve));
  const seconds = (performance.now() - began) / 1000;
  for (const socket of sockets) socket.terminate();
  if (status !== 0) throw new Error(`record ended with ${String(status)}:\n${said}`);
  const { first, last, accesses } = await spanOf(out);
  rmSync(folder, { recursive: true });
  return { rate: accesses / seconds, guestRate: (accesses * 1e9) / (last - first) };
}

/** What a page does that shows the newest rows: with each news of the selection it asks for them. */
function watch(url: string, token: string, stalled: boolean): WebSocket {
  const socket = new WebSocket(`${url}?recording=1`, [SUBPROTOCOL, `token.${token}`]);
  let id = 0;
  const send = (request: Parameters<typeof v1.PageMessage.encode>[0]): void =>
    socket.send(v1.PageMessage.encode({ ...request, id: ++id }).finish());
  socket.on('open', () => {
    send({ watch: { slot: 0, filter: '' } });
    if (stalled) socket.pause();
  });
  socket.on('message', (data: Buffer) => {
    const { selection } = v1.ServerMessage.decode(data);
    const rows = selection?.rows ?? 0;
    if (rows === 0) return;
    send({ rows: { slot: 0, first: Math.max(0, rows - VISIBLE_ROWS), count: VISIBLE_ROWS } });
  });
  socket.on('error', () => undefined);
  return socket;
}

function bundleRows(): string[][] {
  const files = readdirSync(WEB, { recursive: true, withFileTypes: true }).filter((file) =>
    file.isFile(),
  );
  const contents = files.map((file) => readFileSync(join(file.parentPath, file.name)));
  const kib = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KiB`;
  const raw = contents.reduce((sum, { length }) => sum + length, 0);
  const gzipped = contents.reduce((sum, content) => sum + gzipSync(content).length, 0);
  return [[`${files.length} files`, kib(raw), `gzipped ${kib(gzipped)}`]];
}

async function firstRows(dir: string, millions: number): Promise<string[][]> {
  const path = join(dir, 'big.mmiocap');
  await writeBigCapture(path, { rows: millions * 1_000_000 });
  const serving: number[] = [];
  const showing: number[] = [];
  const all: number[] = [];
  for (let round = 0; round < 3; round++) {
    const began = performance.now();
    await using view = await startView(path);
    serving.push(performance.now() - began);
    await using opened = await openPage('about:blank');
    const asked = performance.now();
    await opened.page.goto(view.url);
    await opened.page.locator('.rows .c-op').first().waitFor();
    showing.push(performance.now() - asked);
    await opened.page.locator('#matches[data-done=true]').waitFor();
    all.push(performance.now() - asked);
  }
  rmSync(path);
  const ms = (values: readonly number[]): string => `${Math.round(median(values))} ms`;
  return [
    [`view has said its address, ${millions} million accesses`, ms(serving)],
    ['from asking for the page to the first row', ms(showing)],
    ['until all of it is counted and drawn', ms(all)],
  ];
}
