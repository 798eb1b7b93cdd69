import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { accessesOf } from '../support/access-lines.ts';
import { startCli, Workplace } from '../support/cli.ts';
import { HAMMER_GPA, demoGuest, hammerGuest } from '../support/guests.ts';
import { qemuVersions } from '../support/qemu.ts';
import { until } from '../support/soon.ts';

interface Line {
  readonly type: string;
  readonly t: number;
  readonly op?: string;
  readonly cpu?: number | null;
}

describe.each(qemuVersions())('QEMU $version', ({ version, path }) => {
  test("the demo guest: iPXE's e1000 probes and transmits", async () => {
    await using place = new Workplace();
    const outputs = ['-o', 'demo.mmiotrace', '-o', 'demo.ndjson'];
    const args = ['record', '--device', 'dut', ...outputs, '--', ...demoGuest(path)];
    const beganMs = performance.now();
    const recorder = startCli(args, { cwd: place.dir, env: { MMIOBRIDGE_RUN: place.runDir } });
    try {
      // Transmitting: the tail of the transmit ring is written. And then it waits for an answer.
      const output = place.path('demo.mmiotrace');
      const isThere = () => {
        const text = existsSync(output) ? readFileSync(output, 'latin1') : '';
        const count = (op: string) => [...text.matchAll(new RegExp(`^${op} `, 'gm'))].length;
        return /^W 4 \S+ 1 0x[0-9a-f]+3818 /m.test(text) && count('R') > 20 && count('W') > 20;
      };
      await until('it transmits', isThere);
      recorder.child.kill('SIGINT');
      expect((await recorder.exited).status, recorder.stderr()).toBe(130);
    } finally {
      await recorder.kill();
    }
    const elapsedNs = (performance.now() - beganMs) * 1e6;
    const text = place.text('demo.mmiotrace');
    expect(text.split('\n')[1]).toContain(`QEMU ${version}`);
    const pcidev = /^PCIDEV 0010 8086100e \S+ ([0-9a-f]+) /m.exec(text);
    expect(pcidev, text.slice(0, 500)).not.toBeNull();
    expect(text).toMatch(new RegExp(`^MAP \\S+ 1 0x${pcidev?.[1] ?? ''} 0x0 0x20000 0x0 0$`, 'm'));
    expect(text).toMatch(/mmiobridge: coverage end dut BAR0 0x0\+0x20000 trapped/);
    // Transmitting: the tail of the transmit ring is written.
    const tail = parseInt(pcidev?.[1] ?? '', 16) + 0x3818;
    expect(text).toMatch(new RegExp(`^W 4 \\S+ 1 0x${tail.toString(16)} `, 'm'));

    const lines = place
      .text('demo.ndjson')
      .trimEnd()
      .split('\n')
      .map((line): Line => JSON.parse(line) as Line);
    expect(lines.find(({ type }) => type === 'device')).toMatchObject({ model: 'e1000' });
    const accesses = lines.filter(({ type }) => type === 'access');
    const ofOp = (op: string) => accesses.filter((line) => line.op === op).length;
    expect(ofOp('R')).toBeGreaterThan(20);
    expect(ofOp('W')).toBeGreaterThan(20);
    expect(lines.at(-1)).toMatchObject({
      type: 'end',
      complete: true,
      counters: { reads: ofOp('R'), writes: ofOp('W'), lossEvents: 0, damagedLines: 0 },
    });
    expect(new Set(accesses.map((line) => line.cpu))).toEqual(new Set([0]));

    // Times go forward, by more than a tick of QEMU's clock, and within the recording.
    const times = accesses.map((line) => line.t);
    expect(times.filter((t, i) => t < (times[i - 1] ?? 1))).toEqual([]);
    expect(new Set(times).size).toBeGreaterThan(times.length / 10);
    expect((times.at(-1) ?? 0) - (times[0] ?? 0)).toBeGreaterThan(10e6);
    expect(times.at(-1)).toBeLessThan(elapsedNs);
  });

  test('a guest that counts: every value once each way, in order', async () => {
    await using place = new Workplace();
    const pairs = 100_000;
    const guest = await hammerGuest({ iterations: pairs, qemu: path });
    const args = ['record', '--device', 'dut', '-o', 'hammer.mmiotrace', '--'];
    const { status, stderr } = await place.cli([...args, ...guest]);
    expect(status, stderr).toBe(0);
    const address = `0x${(HAMMER_GPA + 4).toString(16)}`;
    const expected: string[] = [];
    for (let i = 0; i < pairs; i++) {
      expected.push(`W 4 ${address} 0x${i.toString(16)}`);
      expected.push(`R 4 ${address} 0x${(~i >>> 0).toString(16)}`);
    }
    expect(accessesOf(place.text('hammer.mmiotrace'))).toEqual(expected);
  });
});
