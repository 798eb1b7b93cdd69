import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { QmpClient } from '../../src/qmp/client.ts';
import { PluginLink } from '../../src/recording/source/plugin/link.ts';
import {
  RECORD_BYTES,
  RecordField,
  WireType,
  message,
  welcome,
} from '../../src/sources/plugin/wire.ts';
import { Workplace, run, startCli, type CliProcess } from '../support/cli.ts';
import { HAMMER_DONE, HAMMER_GPA, hammerGuest } from '../support/guests.ts';
import { makePlugin, pluginVariants, type PluginVariant } from '../support/plugin.ts';
import { SYSTEM_QEMU, qemuVersions } from '../support/qemu.ts';
import { answering } from '../support/plugin-peer.ts';
import { until } from '../support/soon.ts';

const hex = (at: number) => at.toString(16).padStart(2, '0');

interface Access {
  readonly type: string;
  readonly op: string;
  readonly cpu: number;
  readonly value: string;
  readonly pc: string;
}

function accessesIn(text: string): Access[] {
  return text
    .split('\n')
    .filter((line) => line.includes('"type":"access"'))
    .map((line) => JSON.parse(line) as Access);
}

/** The values that were written, and all accesses, of a log of the hammer guest. */
function countsIn(text: string): { readonly written: number[]; readonly accesses: number } {
  const written = [...text.matchAll(/^W 4 \S+ \d+ 0xe1000004 (0x[0-9a-f]+) /gm)];
  return {
    written: written.map(([, value]) => Number(value)),
    accesses: text.match(/^[RW] 4 /gm)?.length ?? 0,
  };
}

const argvOf = ({ qemu, env }: PluginVariant, object: string, socket: string) => ({
  program: qemu[0] ?? '',
  before: qemu.slice(1),
  plugin: ['-plugin', `${env.MMIOBRIDGE_PLUGIN_DIR}/${object},socket=${socket}`],
});

/** Runs the hammer guest with the plugin, and no recorder of ours around it. */
async function runBare(variant: PluginVariant, socket: string, iterations: number) {
  const object = variant.version === '11.1' ? 'mmio-plugin-7.so' : 'mmio-plugin-4.so';
  const { plugin } = argvOf(variant, object, socket);
  const [program = '', ...args] = await hammerGuest({ iterations, qemu: variant.qemu });
  return run(program, [...args, ...plugin]);
}

const runEnv = (place: Workplace) => ({ MMIOBRIDGE_RUN: place.runDir });

interface Status {
  readonly qemuPid: number;
  readonly counters: { readonly writes: number; readonly lost: number };
}

/** Waits until a recording has more writes. */
function recorded(place: Workplace, writes = 1000): Promise<Status> {
  return until('it has recorded', async () => {
    const { stdout } = await place.cli(['status', '--json']);
    const [session] = JSON.parse(stdout) as { readonly status?: Status }[];
    return (session?.status?.counters.writes ?? 0) > writes && session?.status;
  });
}

test('the golden file is what wire.h says', () => {
  const golden = fileURLToPath(new URL('../golden/plugin/wire.bin', import.meta.url));
  expect(makePlugin('golden').equals(readFileSync(golden))).toBe(true);
});

test("gcc's and clang's analysers find nothing", () => {
  expect(() => makePlugin('analyze')).not.toThrow();
});

describe.each(pluginVariants())('the plugin in $name', (variant) => {
  const { env, qemu } = variant;
  const record = (place: Workplace, guest: readonly string[], ...args: string[]): CliProcess =>
    startCli(['record', '--source', 'plugin', '--device', 'dut', ...args, '--', ...guest], {
      cwd: place.dir,
      env: { ...env, ...runEnv(place) },
    });

  test('four processors at once: nothing is lost, each in its order, with its instruction', async () => {
    await using place = new Workplace();
    const iterations = 20_000;
    // Slowly: a QEMU that is asked by QMP just when it ends, and slow with a sanitizer, may hang.
    const guest = await hammerGuest({ iterations, processors: 4, pauseTurns: 5000, qemu });
    const { status, stderr } = await place.cli(
      ['record', '--source', 'plugin', '--device', 'dut', '-o', 'four.ndjson', '--', ...guest],
      { env },
    );
    expect(status, stderr).toBe(0);
    expect(stderr).toContain('loss      none');
    expect(stderr).toContain(`QEMU ended with status ${HAMMER_DONE}`);
    const accesses = accessesIn(place.text('four.ndjson'));
    expect(accesses).toHaveLength(8 * iterations);
    for (const cpu of [0, 1, 2, 3]) {
      const own = accesses.filter((access) => access.cpu === cpu);
      const written = own.filter(({ op }) => op === 'W').map(({ value }) => Number(value));
      expect(written).toEqual(Array.from({ length: iterations }, (_, i) => i));
    }
    // One instruction writes, one reads, in the guest's code.
    const pcs = (op: string) => new Set(accesses.filter((a) => a.op === op).map(({ pc }) => pc));
    expect([pcs('W').size, pcs('R').size]).toEqual([1, 1]);
    for (const pc of [...pcs('W'), ...pcs('R')]) {
      expect(Number(pc)).toBeGreaterThan(0x100000);
      expect(Number(pc)).toBeLessThan(0x101000);
    }
  });

  test('accesses of each width, and over two pages', async () => {
    await using place = new Workplace();
    const writesOf = async (widths: number, offset: number): Promise<string[]> => {
      const registers = { writeOffset: offset, readOffset: offset };
      const guest = await hammerGuest({ iterations: 3, widths, ...registers, qemu });
      const { status, stderr } = await place.cli(
        ['record', '--source', 'plugin', '--device', 'dut', '-o', 'w.mmiotrace', '--', ...guest],
        { env },
      );
      expect(status, stderr).toBe(0);
      const written = place.text('w.mmiotrace').matchAll(/^W (\d+) \S+ 1 (\S+) (\S+) /gm);
      return [...written].map(([, width, address, value]) => `${width} ${address} ${value}`);
    };
    // A device is asked for 16 bytes as for two times 8.
    const expected = ['0x0', '0x1', '0x2'].flatMap((value) => {
      const twice = value === '0x0' ? value : `${value}0000000${value.slice(2)}`;
      const narrow = [1, 2, 4].map((width) => `${width} 0xe1000008 ${value}`);
      return [...narrow, ...[8, 8, 0x10].map((at) => `8 0xe10000${hex(at)} ${twice}`)];
    });
    expect(await writesOf(31, 8)).toEqual(expected);
    expect(await writesOf(4, 0xffe)).toEqual([0, 1, 2].map((i) => `4 0xe1000ffe 0x${i}`));
  });

  test('the recorder is killed: the guest goes on, and resume counts what it missed', async () => {
    await using place = new Workplace();
    const guest = await hammerGuest({ iterations: 0, pauseTurns: 2000, qemu });
    const killed = record(place, guest, '-o', 'log.mmiotrace');
    try {
      const before = (await recorded(place)).counters.writes;
      process.kill(killed.pid, 'SIGKILL');
      await killed.exited;
      await sleep(200);
      const [id = ''] = /\d{8}T\d{6}-\d+/.exec(killed.stderr()) ?? [];
      const resumed = startCli(['resume', id], { cwd: place.dir, env: runEnv(place) });
      try {
        const isBack = async () => (await recorded(place, before)).counters.lost > 0;
        await until('the plugin is back', isBack);
        process.kill(resumed.pid, 'SIGINT');
        await resumed.exited;
      } finally {
        await resumed.kill();
      }
      expect(resumed.stderr()).toMatch(/loss {6}[\d,]+ accesses, in 1 place/);
      const text = place.text('log.mmiotrace');
      const lost = /Lost (\d+) events/.exec(text)?.[1];
      const { written, accesses } = countsIn(text);
      const last = written.at(-1) ?? 0;
      expect(Number(lost)).toBeGreaterThan(100);
      // With what was lost they are all that the guest did, to the last one.
      const all = accesses + Number(lost);
      expect([2 * last + 1, 2 * last + 2]).toContain(all);
      const jumps = written.filter((value, i) => i > 0 && value !== (written[i - 1] ?? 0) + 1);
      expect(jumps.length).toBeLessThanOrEqual(1);
    } finally {
      await killed.kill();
    }
  });

  test("QEMU's log is sent elsewhere, and events are switched off: what it would have told is a loss", async () => {
    await using place = new Workplace();
    const monitor = place.path('monitor');
    const guest = await hammerGuest({ iterations: 0, pauseTurns: 2000, qemu });
    const watched = [...guest, '-qmp', `unix:${monitor},server=on,wait=off`];
    const recorder = record(place, watched, '-o', 'log.mmiotrace');
    try {
      await recorded(place);
      const qmp = await QmpClient.connect(monitor);
      await qmp.hmp('logfile /dev/null');
      await qmp.hmp('trace-event pci_update_mappings_add off');
      await until('it is put back', () => recorder.stderr().includes('put back'));
      expect(await qmp.hmp('info trace-events pci_update_mappings_add')).toMatch(/: state 1/);
      await qmp.close();
      process.kill(recorder.pid, 'SIGINT');
      await recorder.exited;
      expect(recorder.stderr()).toMatch(
        /QEMU's log was sent elsewhere, and trace events were switched off \(pci_update_mappings_add\), by somebody else/,
      );
      // What the plugin tells of is not among it.
      const text = place.text('log.mmiotrace');
      const { written } = countsIn(text);
      expect(written).toEqual(Array.from(written, (_, i) => i));
      expect(text).toMatch(/^MARK \S+ Lost an unknown number/m);
      expect(text).toMatch(/mmiobridge: end incomplete/);
    } finally {
      await recorder.kill();
    }
  });

  test('QEMU is killed: the log is whole to the last batch, and says that more may be missing', async () => {
    await using place = new Workplace();
    const guest = await hammerGuest({ iterations: 0, pauseTurns: 2000, qemu });
    const recorder = record(place, guest, '-o', 'log.mmiotrace');
    try {
      process.kill((await recorded(place)).qemuPid, 'SIGKILL');
      expect((await recorder.exited).status).toBe(1);
      expect(recorder.stderr()).toContain('the recording is INCOMPLETE: loss in 1 place');
      const text = place.text('log.mmiotrace');
      const { written } = countsIn(text);
      expect(written.length).toBeGreaterThan(100);
      expect(written).toEqual(Array.from(written, (_, i) => i));
      expect(text).toMatch(/^MARK .*the plugin ended without a farewell/m);
    } finally {
      await recorder.kill();
    }
  });

  test('the ranges change while the guest hammers: each holds from where the plugin says so', async () => {
    await using place = new Workplace();
    const target = 'x86_64';
    const problems: string[] = [];
    const socket = place.path('sock');
    const link = await PluginLink.listen(socket, {
      overflow: 'wait',
      target,
      onProblem: (words) => problems.push(words),
    });
    const base = BigInt(HAMMER_GPA);
    // The register that is read, and the one that is written.
    const registers = [8, 4];
    const lists = [
      [{ start: base + 8n, last: base + 11n }],
      [{ start: base + 4n, last: base + 7n }],
    ];
    let asked = 1;
    let taken = 0;
    let sinceTaken = 0;
    let number = 0;
    const wrong: string[] = [];
    const seen = new Set<number>();
    let farewell = -1;
    const takeRecord = (body: Buffer, at: number) => {
      const register = Number(body.readBigUInt64LE(at + RecordField.gpa) - base);
      const of = body.readUInt32LE(at + RecordField.number);
      if (of !== number) wrong.push(`number ${of}, not ${number}`);
      number = of + 1;
      seen.add(register);
      // Those that were asked for hold at the latest from where the plugin says so.
      const allowed = new Set([registers[taken % 2], registers[asked % 2]]);
      if (!allowed.has(register)) wrong.push(`register ${register} under ranges ${taken}`);
    };
    link.listenWith({
      onMessage: (type, body) => {
        if (type === WireType.rangesTaken) {
          taken = body.readUInt32LE(0);
          sinceTaken = 0;
        } else if (type === WireType.farewell) farewell = body.readUInt32LE(0);
        else if (type === WireType.records) {
          for (let at = 0; at < body.length; at += RECORD_BYTES) takeRecord(body, at);
          sinceTaken += body.length / RECORD_BYTES;
          // Nothing is asked at the guest's end: what is written to a peer that has gone takes unread bytes along.
          if (sinceTaken > 100 && taken === asked && asked < 50)
            link.want(lists[++asked % 2] ?? []);
        }
      },
      onClose: () => undefined,
    });
    link.want(lists[1] ?? []);
    try {
      const [program = '', ...args] = await hammerGuest({
        iterations: 1_000_000,
        writeOffset: 4,
        readOffset: 8,
        qemu,
      });
      const object = variant.version === '11.1' ? 'mmio-plugin-7.so' : 'mmio-plugin-4.so';
      const { plugin } = argvOf(variant, object, socket);
      const { status, stderr } = await run(program, [...args, ...plugin]);
      expect(status, stderr).toBe(HAMMER_DONE);
      await until('the plugin says farewell', () => farewell >= 0);
    } finally {
      link.close();
    }
    expect(wrong.slice(0, 3)).toEqual([]);
    expect(problems).toEqual([]);
    expect(taken).toBeGreaterThan(20);
    expect([...seen].toSorted()).toEqual([4, 8]);
    expect(farewell).toBe(number);
  });

  test.each([
    ['says nothing and hangs up', [], /no recorder takes the accesses: it hung up/],
    [
      'answers with garbage',
      [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
      /no message of ours/,
    ],
    ['is of another version', [welcome('wait', 9)], /its version is 9, the plugin's 1: build/],
  ])('a recorder that %s: QEMU does not start, and says why', async (_, answer, why) => {
    await using place = new Workplace();
    await using peer = await answering(place.path('sock'), answer, { hangUp: true });
    const { status, stderr } = await runBare(variant, peer.path, 1000);
    expect(status).toBe(1);
    expect(stderr).toMatch(why);
  });

  test('a recorder that sends garbage later: the guest goes on to its end', async () => {
    await using place = new Workplace();
    const answer = [welcome('wait'), message(WireType.ranges, Buffer.alloc(15))];
    await using peer = await answering(place.path('sock'), answer, { hangUp: false });
    const { status, stderr } = await runBare(variant, peer.path, 100_000);
    expect(status, stderr).toBe(HAMMER_DONE);
    expect(stderr).toContain('the recorder sent what is no message of ours');
  });

  test('nobody listens: QEMU does not start, and says so', async () => {
    const { status, stderr } = await runBare(variant, '/nonexistent/sock', 1000);
    expect(status).toBe(1);
    expect(stderr).toContain('no recorder takes the accesses: No such file or directory');
  });
});

const newest = () => qemuVersions().at(-1)!;

describe('record --source plugin says what is wrong', () => {
  const record = (place: Workplace, guest: readonly string[], env = {}, ...args: string[]) =>
    place.cli(['record', '--source', 'plugin', '--device', 'dut', ...args, '--', ...guest], {
      env,
    });

  test('with a QEMU that is too old', async () => {
    await using place = new Workplace();
    const guest = await hammerGuest({ iterations: 10, qemu: SYSTEM_QEMU });
    // Also where there is no plugin: building it would be in vain.
    const env = { MMIOBRIDGE_PLUGIN_DIR: place.dir };
    const { status, stderr } = await record(place, guest, env);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^mmiobridge: QEMU 7\.2\.\d+ is too old for the plugin$/m);
    expect(stderr).toContain("record from QEMU's own log instead: --source log");
  });

  test('with a guest on KVM', async () => {
    await using place = new Workplace();
    const guest = await hammerGuest({ iterations: 10, accel: 'kvm' });
    const { status, stderr } = await record(place, guest);
    expect(status).toBe(1);
    expect(stderr).toContain('a plugin sees guests of TCG only');
  });

  test('where the plugin has not been built', async () => {
    await using place = new Workplace();
    const guest = await hammerGuest({ iterations: 10, qemu: newest().path });
    const { status, stderr } = await record(place, guest, { MMIOBRIDGE_PLUGIN_DIR: place.dir });
    expect(status).toBe(1);
    expect(stderr).toContain('the QEMU plugin has not been built');
    expect(stderr).toMatch(/make -C \S+qemu-scripts\/plugin OUT=/);
  });

  test('with a QEMU that runs already', async () => {
    await using place = new Workplace();
    const { status, stderr } = await place.cli(['record', '--source', 'plugin', '--qmp', '/none']);
    expect(status).toBe(2);
    expect(stderr).toContain('a running QEMU cannot load a plugin');
  });
});
