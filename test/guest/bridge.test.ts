/**
 * Recordings that leave their host. The guest writes a counter and reads its complement, so that the
 * collector's log shows whether every access is there, once, in order: whatever was cut, killed or
 * full meanwhile.
 */
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  CollectorHost,
  TOKEN,
  TwoHosts,
  badWire,
  makeCertificate,
  type BadWire,
} from '../support/bridge.ts';
import { Bench, MAIN, counted, toldAtEnd, type Running } from '../support/death.ts';
import { hammerGuest } from '../support/guests.ts';
import { until } from '../support/soon.ts';

let bench: Bench;
const after: (() => void)[] = [];
beforeEach(() => {
  bench = new Bench();
});
afterEach(async () => {
  await bench.close();
  for (const step of after.splice(0)) step();
});

/** About 15,000 pairs a second, for as long as the test wants. */
const endless = () => hammerGuest({ iterations: 0, pauseTurns: 40_000 });
const PORT = 7431;
const TCP = `tcp://127.0.0.1:${PORT}`;

/** The log is complete, and so says its end. */
function expectComplete(text: string): number {
  const { pairs, gaps } = counted(text);
  expect(gaps).toEqual([]);
  expect(text).not.toMatch(/lost/i);
  const { reads, writes, how } = toldAtEnd(text);
  expect(how).toBe('complete');
  expect(writes).toBe(pairs);
  expect([pairs, pairs - 1]).toContain(reads);
  return pairs;
}

async function grown(host: CollectorHost, byBytes: number, name = 'dut.mmiotrace'): Promise<void> {
  const size = () => statSync(join(host.dir, name), { throwIfNoEntry: false })?.size ?? 0;
  const wanted = size() + byBytes;
  await until(`${name} has grown by ${byBytes} bytes`, () => size() >= wanted);
}

async function kill(running: Running): Promise<void> {
  running.kill('SIGKILL');
  expect(await running.exited).toEqual({ status: null, signal: 'SIGKILL' });
}

async function end(recorder: Running): Promise<void> {
  recorder.kill('SIGINT');
  expect(await recorder.exited, recorder.stderr).toEqual({ status: 130, signal: null });
}

async function record(...args: readonly string[]): Promise<Running> {
  return bench.record(['--token-file', 'token', ...args], await endless());
}

describe('two hosts, TLS between them', () => {
  const address = `tls://${TwoHosts.deskAddress}:${PORT}`;
  const trust = ['--token-file', 'token', '--tls-ca', 'cert.pem'];
  const certificate = ['--tls-cert', 'cert.pem', '--tls-key', 'key.pem'];
  let hosts: TwoHosts;
  let desk: CollectorHost;
  beforeEach(() => {
    hosts = new TwoHosts();
    after.push(() => hosts.close());
    desk = new CollectorHost(bench, hosts.desk);
    makeCertificate(bench, `IP:${TwoHosts.deskAddress}`);
  });

  async function recordInLab(): Promise<Running> {
    const words = ['record', '--device', 'dut', '--send-to', address, ...trust, '--'];
    const program = [process.execPath, MAIN, ...words, ...(await endless())];
    const recorder = bench.start(hosts.inLab(program).slice(1), 'ip');
    await recorder.says(/^recording /m);
    return recorder;
  }

  test('a link that is cut is noticed, named, and made good when it is there again', async () => {
    const collector = await desk.listen(address, ...certificate);
    const recorder = await recordInLab();
    await grown(desk, 300_000);
    hosts.cut();
    await recorder.says(/collector tls:.*: connection lost: it has been silent for 1\d s/);
    await collector.says(/ dut: connection lost: it has been silent for 1\d s/);
    const [entry] = await bench.status();
    expect(entry?.state).toBe('recording');
    await until('what the guest does meanwhile waits', () => bench.spoolBytes() > 1_000_000);
    hosts.restore();
    await recorder.says(/connected again/);
    await grown(desk, 300_000);
    await end(recorder);
    expect(desk.outputs()).toEqual(['dut.mmiotrace']);
    expectComplete(desk.read('dut.mmiotrace'));
    await collector.says(/ dut: finished: \d+ accesses in .*dut\.mmiotrace/);
  });

  test('either side is killed, and both: every access once', async () => {
    let collector = await desk.listen(address, ...certificate);
    const recorder = await recordInLab();
    await grown(desk, 300_000);
    await kill(collector);
    await recorder.says(/connection lost/);
    collector = await desk.listen(address, ...certificate);
    await recorder.says(/connected again/);
    await grown(desk, 300_000);

    await kill(recorder);
    await collector.says(/connection lost/);
    const resume = [process.execPath, MAIN, 'resume', bench.session()];
    let resumed = bench.start(hosts.inLab(resume).slice(1), 'ip');
    await resumed.says(/^resuming/m);
    await grown(desk, 300_000);

    await Promise.all([kill(resumed), kill(collector)]);
    await desk.listen(address, ...certificate);
    resumed = bench.start(hosts.inLab(resume).slice(1), 'ip');
    await resumed.says(/^resuming/m);
    await grown(desk, 300_000);
    await end(resumed);
    expect(desk.outputs()).toEqual(['dut.mmiotrace']);
    expectComplete(desk.read('dut.mmiotrace'));
    expect(bench.sessions()).toEqual([]);
  });

  test('a certificate that is not trusted is refused, and how to trust it is said', async () => {
    await desk.listen(address, ...certificate);
    const words = [
      'record',
      '--device',
      'dut',
      '--send-to',
      address,
      '--token-file',
      'token',
      '--',
    ];
    const program = [process.execPath, MAIN, ...words, ...(await endless())];
    const recorder = bench.start(hosts.inLab(program).slice(1), 'ip');
    expect(await recorder.exited).toMatchObject({ status: 1 });
    expect(recorder.stderr).toMatch(/DEPTH_ZERO_SELF_SIGNED_CERT/);
    expect(recorder.stderr).toContain("hint: trust it with --tls-ca FILE: the collector's");
    expect(bench.sessions()).toEqual([]);
    expect(bench.qemus()).toEqual([]);
  });
});

describe('one host', () => {
  let desk: CollectorHost;
  beforeEach(() => {
    desk = new CollectorHost(bench);
  });

  test('what the collector writes is what the recorder writes, in every format', async () => {
    const kinds = ['mmiotrace', 'mmiocap', 'ndjson', 'txt.gz'];
    const patterns = kinds.flatMap((kind) => ['-o', join(desk.dir, `{device}.${kind}`)]);
    const socket = `unix:${bench.path('socket')}`;
    await desk.listen(socket, ...patterns);
    expect(statSync(bench.path('socket')).mode & 0o777).toBe(0o600);
    const guest = await hammerGuest({ iterations: 100_000 });
    const outputs = kinds.flatMap((kind) => ['-o', `x.${kind}`]);
    const recorder = await bench.record(['--send-to', socket, ...outputs], guest);
    expect(await recorder.exited).toMatchObject({ status: 0 });
    expect(recorder.stderr).toContain(`sent to   ${socket}`);
    expect(expectComplete(desk.read('dut.mmiotrace'))).toBe(100_000);
    expect(desk.read('dut.mmiotrace') === bench.read('x.mmiotrace')).toBe(true);
    // The header's names may come in any order.
    const [header, body] = jsonLines(desk.read('dut.ndjson'));
    const [headerHere, bodyHere] = jsonLines(bench.read('x.ndjson'));
    expect(header).toEqual(headerHere);
    expect(body === bodyHere).toBe(true);
    for (const name of ['mmiocap', 'txt.gz']) {
      const from = join(desk.dir, `dut.${name}`);
      if (name === 'mmiocap') await bench.run('convert', from, '-o', 'again.mmiotrace');
      else writeFileSync(bench.path('again.mmiotrace'), await gunzipped(from));
      expect(bench.read('again.mmiotrace') === bench.read('x.mmiotrace'), name).toBe(true);
    }
  });

  test('a disk of the collector that is full stops the guest; with room made it goes on', async () => {
    const disk = bench.mountDisk('disk', '2m');
    const pairs = 200_000;
    const collector = await desk.listen(TCP, '-o', join(disk, '{device}.mmiotrace'));
    const guest = await hammerGuest({ iterations: pairs });
    const recorder = await bench.record(
      ['--send-to', TCP, '--token-file', 'token', '--spool-limit', '4M'],
      guest,
    );
    await collector.says(/waiting for room: .*disk\/dut\.mmiotrace: ENOSPC/);
    await recorder.says(/collector tcp:.*: .*disk\/dut\.mmiotrace: ENOSPC/);
    await recorder.says(/the guest is paused until the outputs have caught up/);
    // Longer than a silent peer is put up with: both are there, and say so.
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    expect(recorder.stderr).not.toContain('connection lost');
    const status = await bench.run('status');
    expect(status.stdout).toMatch(/^ {2}collector tcp:.*ENOSPC/m);
    // Killed in this state, it finds its way all the same.
    await kill(collector);
    bench.enlargeDisk(disk, '64m');
    await desk.listen(TCP, '-o', join(disk, '{device}.mmiotrace'));
    expect(await recorder.exited, recorder.stderr).toMatchObject({ status: 0 });
    expect(expectComplete(bench.read('disk/dut.mmiotrace'))).toBe(pairs);
  });

  test('a wire with 200 ms, 5 % loss and cuts in the middle of frames', async () => {
    const wire: BadWire = await badWire(PORT, 500_000);
    after.push(() => wire.close());
    await desk.listen(TCP);
    const pairs = 150_000;
    const guest = await hammerGuest({ iterations: pairs, pauseTurns: 5000 });
    const to = ['--send-to', `tcp://127.0.0.1:${wire.port}`, '--token-file', 'token'];
    const recorder = await bench.record(to, guest);
    expect(await recorder.exited, recorder.stderr).toMatchObject({ status: 0 });
    expect(wire.cuts()).toBeGreaterThan(2);
    expect(expectComplete(desk.read('dut.mmiotrace'))).toBe(pairs);
  });

  test('eight recordings at once, each in a file of its own', async () => {
    await desk.listen(TCP);
    const pairs = 10_000;
    const guest = await hammerGuest({ iterations: pairs, pauseTurns: 5000 });
    const args = ['record', '--device', 'dut', '--send-to', TCP, '--token-file', 'token', '--'];
    const recorders = Array.from({ length: 8 }, () => bench.start([...args, ...guest]));
    for (const recorder of recorders) {
      expect(await recorder.exited, recorder.stderr).toMatchObject({ status: 0 });
    }
    const names = ['dut.mmiotrace', ...[2, 3, 4, 5, 6, 7, 8].map((n) => `dut-${n}.mmiotrace`)];
    expect(desk.outputs().toSorted()).toEqual(names.toSorted());
    for (const name of names) expect(expectComplete(desk.read(name))).toBe(pairs);
  });

  test('marks and status, from both ends', async () => {
    await desk.listen(TCP);
    const recorder = await record('--send-to', TCP);
    await grown(desk, 200_000);
    const id = bench.session();
    expect((await bench.run('mark', 'from the lab')).status).toBe(0);
    const marking = desk.start('mark', 'from the desk');
    expect(await marking.exited, marking.stderr).toMatchObject({ status: 0 });
    expect(marking.stderr).toMatch(new RegExp(`^marked ${id}@.* at [\\d.]+ s: from the desk`));

    const here = await bench.run('status');
    expect(here.stdout).toMatch(/^ {2}collector tcp:\/\/127.0.0.1:7431: connected; has \d/m);
    const there = desk.start('status', '--json');
    await there.exited;
    const [entry] = JSON.parse(there.stdout) as [
      { session: string; state: string; status: { marks: number; counters: { reads: number } } },
    ];
    expect(entry).toMatchObject({ state: 'recording', status: { marks: 2 } });
    expect(entry.session).toContain(`${id}@`);
    expect(entry.status.counters.reads).toBeGreaterThan(1000);

    await kill(recorder);
    const waiting = desk.start('status');
    await waiting.exited;
    expect(waiting.stdout).toMatch(/waiting for its sender[^]* {2}problem {3}/);
    const late = desk.start('mark', 'nobody hears this');
    expect(await late.exited).toMatchObject({ status: 1 });
    expect(late.stderr).toContain('there is no connection');

    await end(await bench.resume(id));
    const text = desk.read('dut.mmiotrace');
    expectComplete(text);
    expect(text.match(/^MARK [\d.]+ from the (lab|desk)$/gm)).toHaveLength(2);
  });

  test('a peer that stands still is noticed and named, and can come back', async () => {
    const collector = await desk.listen(TCP);
    const recorder = await record('--send-to', TCP);
    await grown(desk, 200_000);
    recorder.kill('SIGSTOP');
    await collector.says(
      / dut: connection lost: it has been silent for 1\d s; its sender can come/,
    );
    recorder.kill('SIGCONT');
    await recorder.says(/connected again/);
    await end(recorder);
    expect(expectComplete(desk.read('dut.mmiotrace'))).toBeGreaterThan(1000);
  });

  test('a recording is resumed while its collector is away: it waits, as record does', async () => {
    const collector = await desk.listen(TCP);
    const recorder = await record('--send-to', TCP);
    await grown(desk, 100_000);
    await Promise.all([kill(recorder), kill(collector)]);
    const resumed = bench.start(['resume', bench.session()]);
    await resumed.says(/cannot reach the collector|connection lost/);
    await sleep(1500);
    expect(resumed.child.exitCode).toBeNull();
    await desk.listen(TCP);
    await resumed.says(/connected again/);
    await grown(desk, 100_000);
    await end(resumed);
    expectComplete(desk.read('dut.mmiotrace'));
    expect(bench.sessions()).toEqual([]);
  });

  test('a collector that is not there, or has another token: QEMU is not left behind', async () => {
    const guest = await endless();
    const args = ['record', '--device', 'dut', '--send-to', TCP, '--token-file', 'token', '--'];
    const nobody = bench.start([...args, ...guest]);
    expect(await nobody.exited).toMatchObject({ status: 1 });
    expect(nobody.stderr).toContain(`cannot reach the collector at ${TCP}\n`);
    expect(nobody.stderr).toContain(`hint: start one there: mmiobridge listen ${TCP}`);

    const collector = await desk.listen(TCP);
    writeFileSync(bench.path('token'), `${TOKEN}, but another`);
    const stranger = bench.start([...args, ...guest]);
    expect(await stranger.exited).toMatchObject({ status: 1 });
    expect(stranger.stderr).toContain(`the collector at ${TCP} refused\n  its token is wrong\n`);
    await collector.says(/127\.0\.0\.1:\d+: refused: its token is wrong/);
    expect(collector.stderr).not.toContain(TOKEN);
    expect(bench.qemus()).toEqual([]);
    expect(bench.sessions()).toEqual([]);
    rmSync(bench.path('token'));
  });
});

async function gunzipped(path: string): Promise<Buffer> {
  const { gunzipSync } = await import('node:zlib');
  const { readFileSync } = await import('node:fs');
  return gunzipSync(readFileSync(path));
}

function jsonLines(text: string): [unknown, string] {
  const at = text.indexOf('\n');
  return [JSON.parse(text.slice(0, at)), text.slice(at)];
}
