import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hammerGuest } from '../support/guests.ts';
import { spanOf } from './capture-span.ts';
import { median, MMIOBRIDGE, run } from './run.ts';
import { printTable } from './table.ts';

const PORT = 7439;

/** Recording into a collector on the same machine, against recording into a file; and the memory. */
export async function benchBridge(dir: string, quick: boolean): Promise<void> {
  const certificate = makeCertificate(dir);
  const ways: [string, string | undefined, readonly string[]][] = [
    ['record -o X.mmiocap', undefined, []],
    ['record --send-to unix:', `unix:${join(dir, 'socket')}`, []],
    ['record --send-to tcp://127.0.0.1', `tcp://127.0.0.1:${PORT}`, []],
    ['record --send-to tls://127.0.0.1', `tls://127.0.0.1:${PORT}`, ['--tls-ca', certificate.cert]],
  ];
  // So many that the spool cannot hide an output that does not keep up.
  const millions = quick ? 1 : 4;
  const rates = ways.map((): number[] => []);
  const guestRates = ways.map((): number[] => []);
  for (let round = 0; round < (quick ? 2 : 3); round++) {
    for (const [index, [, address, trust]] of ways.entries()) {
      const { rate, guestRate } = await once(dir, address, trust, millions);
      rates[index]?.push(rate);
      guestRates[index]?.push(guestRate);
    }
  }
  const base = median(rates[0] ?? []);
  const thousands = (values: readonly number[] | undefined) =>
    `${Math.round(median(values ?? []) / 1000)} thousand/s`;
  printTable(
    `bridge: ${millions} million accesses (TCG, edu, both cores shared): from the start of record until all is on the collector's disk; then the guest's own rate by QEMU's stamps; median`,
    ways.map(([name], index) => [
      name,
      thousands(rates[index]),
      `${(median(rates[index] ?? []) / base).toFixed(2)} of a file`,
      thousands(guestRates[index]),
    ]),
  );

  const rows: string[][] = [];
  for (const count of quick ? [1, 2] : [10, 20]) {
    const { recorderMiB, collectorMiB } = await once(dir, ways[2]?.[1], [], count, true);
    const shown = [recorderMiB, collectorMiB].map((peak) => `${peak.toFixed(0)} MiB`);
    rows.push([`${count} million`, ...shown]);
  }
  printTable('bridge: largest resident set (VmHWM): of the recorder, of the collector', rows);
}

interface Once {
  /** Accesses a second, of the whole command. */
  readonly rate: number;
  /** Accesses a second, from the first to the last. */
  readonly guestRate: number;
  readonly recorderMiB: number;
  readonly collectorMiB: number;
}

async function once(
  dir: string,
  address: string | undefined,
  trust: readonly string[],
  millions: number,
  watchMemory = false,
): Promise<Once> {
  const guest = await hammerGuest({ iterations: millions * 500_000 });
  const out = join(dir, 'bridge', 'x.mmiocap');
  mkdirSync(join(dir, 'bridge'), { recursive: true });
  process.env['MMIOBRIDGE_TOKEN'] = 'the token of the bench';
  const collector = address === undefined ? undefined : await listen(dir, address, out);
  const to = address === undefined ? ['-o', out] : ['--send-to', address, ...trust];
  const argv = [...MMIOBRIDGE, 'record', '--device', 'dut', ...to, '--', ...guest];
  const { peakMiB, seconds } = await run(argv, { watchMemory });
  const collectorMiB = collector?.peakMiB() ?? 0;
  await collector?.end();
  const { first, last, accesses } = await spanOf(out);
  rmSync(join(dir, 'bridge'), { recursive: true });
  return {
    rate: accesses / seconds,
    guestRate: (accesses * 1e9) / (last - first),
    recorderMiB: peakMiB,
    collectorMiB,
  };
}

async function listen(dir: string, address: string, out: string) {
  const [program = '', ...main] = MMIOBRIDGE;
  const certificate = ['--tls-cert', join(dir, 'cert.pem'), '--tls-key', join(dir, 'key.pem')];
  const state = ['--state', join(dir, 'bridge', 'state')];
  const args = [...main, 'listen', address, '-o', out, ...state, ...certificate];
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const exited = new Promise((resolve) => child.once('exit', resolve));
  while (!said.includes('listening on')) {
    if (child.exitCode !== null) throw new Error(said);
    await sleep(10);
  }
  return {
    peakMiB(): number {
      const status = readFileSync(`/proc/${child.pid}/status`, 'latin1');
      return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
    },
    async end(): Promise<void> {
      child.kill('SIGTERM');
      await exited;
    },
  };
}

function makeCertificate(dir: string): { cert: string } {
  const args =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN=bench -addext subjectAltName=IP:127.0.0.1';
  execFileSync('openssl', args.split(' '), { cwd: dir, stdio: 'pipe' });
  return { cert: join(dir, 'cert.pem') };
}
