import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MmioError } from '../../src/base/errors.ts';
import { NO_BUS, readInventory, type PciFunction } from '../../src/machine/inventory.ts';
import { readFlatView } from '../../src/machine/flat-view.ts';
import { parseTree } from '../../src/machine/mtree-tree.ts';
import { parseFlatView } from '../support/flat-view.ts';
import { barWindows, coverageOf } from '../../src/machine/coverage.ts';
import { NO_BAR } from '../../src/model/device.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { isListening } from '../support/qemu.ts';
import { PATIENCE_MS } from '../support/soon.ts';

let directory: string;
let path: string;
let qemu: ChildProcess | undefined;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'qmp-guest-'));
  path = join(directory, 'qmp');
});

afterEach(async () => {
  if (qemu !== undefined && qemu.exitCode === null && qemu.signalCode === null) {
    const ended = once(qemu, 'exit');
    qemu.kill('SIGKILL');
    await ended;
  }
  qemu = undefined;
  await rm(directory, { recursive: true });
});

/** Starts QEMU with a QMP socket at `path`. */
async function start(...argv: readonly string[]): Promise<ChildProcess> {
  const child = spawn(
    'qemu-system-x86_64',
    [...argv, '-nodefaults', '-display', 'none', '-qmp', `unix:${path},server=on,wait=off`],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  qemu = child;
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  child.once('error', (error) => (said += `${error.message}: install qemu-system-x86`));
  while (!isListening(path)) {
    if (child.exitCode !== null || child.pid === undefined) throw new Error(`QEMU: ${said}`);
    await delay(20);
  }
  return child;
}

async function failure(promise: Promise<unknown>): Promise<MmioError> {
  const outcome: unknown = await promise.then(
    () => 'resolved',
    (error: unknown) => error,
  );
  if (outcome instanceof MmioError) return outcome;
  throw new Error(`expected an MmioError, got ${String(outcome)}`);
}

function named(functions: readonly PciFunction[], type: string): PciFunction {
  const found = functions.find((one) => one.type === type);
  if (found === undefined) {
    throw new Error(`no ${type} among ${functions.map((one) => one.type).join(', ')}`);
  }
  return found;
}

const PAUSED = ['-machine', 'pc', '-accel', 'tcg', '-S'];

describe('QMP of a real QEMU', () => {
  test('greets with its version, and answers', async () => {
    await start(...PAUSED);
    await using client = await QmpClient.connect(path);
    expect(client.version).toMatch(/^\d+\.\d+\.\d+/);
    expect(client.version).toContain(client.versionNumber.join('.'));
    await expect(client.execute('query-status')).resolves.toMatchObject({ running: false });
    await expect(client.hmp('info version')).resolves.toContain(client.versionNumber.join('.'));
  });

  test('sends its whole schema', async () => {
    await start(...PAUSED);
    await using client = await QmpClient.connect(path);
    const schema = await client.execute<unknown[]>('query-qmp-schema');
    expect(schema.length).toBeGreaterThan(500);
  });

  test('refuses in its own words', async () => {
    await start(...PAUSED);
    await using client = await QmpClient.connect(path);
    const error = await failure(client.execute('nope'));
    expect(error.code).toBe('refused');
    expect(error.evidence).toBe('CommandNotFound: The command nope has not been found');
    await expect(client.execute('query-name')).resolves.toEqual({});
  });

  test('a hundred commands at once get their own replies', async () => {
    await start(...PAUSED);
    await using client = await QmpClient.connect(path);
    const paths = Array.from({ length: 100 }, (_, n) => (n % 2 === 0 ? '/machine' : '/objects'));
    const types = await Promise.all(
      paths.map((it) => client.execute('qom-get', { path: it, property: 'type' })),
    );
    expect(types).toEqual(paths.map((it) => (it === '/machine' ? types[0] : 'container')));
    expect(types[0]).toMatch(/pc-i440fx.*-machine/);
    expect(client.strayReplies).toBe(0);
  });

  test('STOP and RESUME are seen, however early they come', async () => {
    await start(...PAUSED);
    await using client = await QmpClient.connect(path);
    const begin = Date.now() * 1000;
    const resumed = client.event('RESUME', { timeoutMs: PATIENCE_MS });
    await client.execute('cont');
    const { timestampUs } = await resumed;
    expect(Math.abs(timestampUs - begin)).toBeLessThan(60e6);
    const stopped = client.event(['SHUTDOWN', 'STOP'], { timeoutMs: PATIENCE_MS });
    await client.execute('stop');
    expect((await stopped).name).toBe('STOP');
  });

  test('a second client is told that the socket is held, and gets it when the first leaves', async () => {
    await start(...PAUSED);
    const first = await QmpClient.connect(path);
    const error = await failure(QmpClient.connect(path, { connectTimeoutMs: 300 }));
    expect(error.code).toBe('timeout');
    expect(error.hint).toContain('another program may hold this socket');
    await first.close();
    await using second = await QmpClient.connect(path);
    expect(second.state).toBe('ready');
  });

  test('its death rejects what is pending', async () => {
    const child = await start(...PAUSED);
    const client = await QmpClient.connect(path);
    // Stopped, it cannot answer before it dies.
    child.kill('SIGSTOP');
    const pending = [client.execute('query-pci'), client.hmp('info mtree'), client.event('STOP')];
    const failures = Promise.all(pending.map(failure));
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    expect((await failures).map(({ code }) => code)).toEqual(['closed', 'closed', 'closed']);
    expect((await client.closed)?.code).toBe('closed');
    await exited;
    expect((await failure(QmpClient.connect(path))).code).toBe('refused');
  });
});

const Q35 = [
  '-machine q35 -accel tcg -m 64',
  '-device pcie-root-port,id=rp1,chassis=1,addr=4',
  '-device e1000,id=nic,addr=5',
  '-drive if=none,id=d,driver=null-co,size=1M',
  '-device nvme,drive=d,serial=s,bus=rp1',
  '-device rtl8139,addr=6.0,multifunction=on',
  '-device virtio-rng-pci,addr=6.1',
].flatMap((options) => options.split(' '));

describe('the PCI inventory', () => {
  test('before firmware: all functions, no addresses, what is behind bridges has no bus', async () => {
    await start(...Q35, '-S');
    await using client = await QmpClient.connect(path);
    const functions = await readInventory(client);
    expect(functions.every(({ type, qomPath }) => type !== '' && qomPath !== '')).toBe(true);
    expect(functions.every(({ bars }) => bars.every((bar) => bar.start === 0))).toBe(true);
    expect(named(functions, 'e1000')).toEqual({
      qemuId: 'nic',
      type: 'e1000',
      hostAddress: '',
      bus: 0,
      devfn: 5 << 3,
      vendorId: 0x8086,
      deviceId: 0x100e,
      classCode: 0x020000,
      irq: 0,
      bars: [
        { start: 0, flags: 0, sizeBytes: 0x20000 },
        { start: 0, flags: 1, sizeBytes: 0x40 },
        NO_BAR,
        NO_BAR,
        NO_BAR,
        NO_BAR,
        { start: 0, flags: 0, sizeBytes: 0x40000 },
      ],
      qomPath: '/machine/peripheral/nic',
    });
    expect(named(functions, 'nvme')).toMatchObject({
      qemuId: '',
      bus: NO_BUS,
      devfn: 0,
      vendorId: 0x1b36,
      deviceId: 0x0010,
      classCode: 0x010800,
      qomPath: '/machine/peripheral-anon/device[0]',
    });
    expect(named(functions, 'nvme').bars[0]?.sizeBytes).toBe(0x4000);
    expect(named(functions, 'rtl8139').devfn).toBe(6 << 3);
    expect(named(functions, 'virtio-rng-pci').devfn).toBe((6 << 3) | 1);
    expect(named(functions, 'mch')).toMatchObject({ bus: 0, devfn: 0 });
  });

  test('after firmware: addresses and buses, and each BAR is covered', async () => {
    await start(...Q35);
    await using client = await QmpClient.connect(path);
    let functions = await readInventory(client);
    for (let tries = 0; tries < 300; tries++) {
      if ((named(functions, 'nvme').bars[0]?.start ?? 0) !== 0) break;
      await delay(100);
      functions = await readInventory(client);
    }
    const nvme = named(functions, 'nvme');
    expect(nvme).toMatchObject({ qemuId: '', bus: 1, devfn: 0, classCode: 0x010800 });
    expect(nvme.bars[0]?.flags).toBe(4);
    expect(nvme.bars[0]?.start).toBeGreaterThan(0xc0000);
    expect(named(functions, 'rtl8139').bars[0]).toMatchObject({ flags: 1, sizeBytes: 0x100 });

    await client.execute('stop');
    const inventory = await readInventory(client);
    const windows = barWindows(inventory);
    const ranges = await readFlatView(client, parseTree(await client.hmp('info mtree')), windows);
    // What QEMU says itself, which has a price that only a test may pay.
    const flat = parseFlatView(await client.hmp('info mtree -f'));
    for (const { type, bars } of inventory) {
      for (const bar of bars.slice(0, 6)) {
        const of = (view: typeof flat) =>
          coverageOf(type, 'BAR', bar, view).map(({ offset, lengthBytes, state }) => ({
            type,
            offset,
            lengthBytes,
            state,
          }));
        expect(of(ranges)).toEqual(of(flat));
      }
    }
    expect(windows.length).toBeGreaterThan(5);
    const [first, ...others] = coverageOf('nvme', 'BAR0', nvme.bars[0] ?? NO_BAR, ranges);
    expect(first).toMatchObject({ device: 'nvme', region: 'BAR0', offset: 0, state: 'trapped' });
    expect(first?.why).toContain('i/o): nvme');
    expect(others.map(({ why }) => why).join('\n')).toContain('msix-table');
  });
});
