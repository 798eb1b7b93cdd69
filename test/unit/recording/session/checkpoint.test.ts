import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { RawBatch } from '../../../../src/sources/raw-batch.ts';
import { restoreState, takeCheckpoint } from '../../../../src/recording/session/checkpoint.ts';
import type { SessionInfo } from '../../../../src/recording/session/info.ts';
import { Journal } from '../../../../src/recording/session/journal.ts';
import {
  findSessions,
  listSessions,
  SessionFolder,
} from '../../../../src/recording/session/session-folder.ts';
import { HEADER } from '../../../support/captures.ts';

let work = '';
let folder: SessionFolder;
beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), 'session-'));
  vi.stubEnv('MMIOBRIDGE_RUN', work);
  folder = new SessionFolder('20270101T000000-1');
  mkdirSync(folder.path);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(work, { recursive: true });
});

const INFO: SessionInfo = {
  id: '20270101T000000-1',
  recorder: { pid: 2 ** 30, startTime: 1 },
  qemu: { pid: 2 ** 30 + 1, startTime: 2 },
  launched: true,
  qmpAddress: '/run/qmp.sock',
  spoolDir: '/dev/shm/spool',
  header: HEADER,
  selection: ['dut'],
  outputs: ['/tmp/out.mmiocap'],
  remote: undefined,
  format: 'ndjson',
  textExtra: ['config'],
  overflow: 'drop',
  spoolLimitBytes: 2 ** 30,
  userLog: { path: undefined, patterns: ['nvme_*'], logItems: false },
  source: 'log',
  sourceInfo: { traceEvents: ['vfio_region_read'], restore: null, trace: null },
};
const AT = {
  position: { segment: 3, offset: 77 },
  journalTaken: 2,
  source: { lines: { stamped: 5, unstamped: 0, others: [] }, pc: null },
  outputBytes: [1234],
  leftOut: [0, 3],
  userLogBytes: 0,
};

/** A recording that has seen a device move, accesses, an interrupt, a mark and a loss. */
function someState() {
  const { attribution, counts } = restoreState(['dut'], undefined);
  const nic = { type: 'e1000e', bus: 0, devfn: 16, bar: 0, sizeBytes: 0x1000 };
  attribution.targets = [{ kind: 'guest-address' }];
  attribution.devices.map({ kind: 'mapping', timeNs: 0, added: true, gpa: 0xfe000000, ...nic });
  const rows = new RawBatch(2);
  rows.length = 2;
  rows.offset.set([0xfe000010, 0x1000]);
  rows.op.set([1, 0]);
  rows.width.fill(4);
  const drain = () => {
    for (let item; (item = attribution.next()) !== undefined;) counts.write(item);
  };
  attribution.devices.states[0]!.selected = true;
  attribution.devices.map({ kind: 'mapping', timeNs: 1, added: true, gpa: 0xfd000000, ...nic });
  rows.offset[0] = 0xfd000010;
  attribution.take(rows);
  drain();
  attribution.note({ kind: 'mark', timeNs: 5, text: 'driver loaded' });
  attribution.note({ kind: 'loss', timeNs: 6, count: 3, durationNs: 0, reason: 'full' });
  drain();
  return {
    attribution,
    counts,
    coverage: [],
    notes: ['n'],
    trapped: { dut: 'x-no-mmap=on' },
    headStated: true,
  };
}

describe('a checkpoint', () => {
  test('puts back all that it was taken of', async () => {
    const state = someState();
    await folder.writeCheckpoint(takeCheckpoint(state, AT));
    const saved = await folder.readCheckpoint();
    expect(saved).toMatchObject(AT);
    const back = restoreState(['dut'], saved);
    expect(back.attribution.snapshot()).toEqual(state.attribution.snapshot());
    expect(back.counts.result()).toEqual(state.counts.result());
    expect(back.counts.totals).toMatchObject({ writes: 1, marks: 1, lossEvents: 1, lost: 3 });
    expect([back.notes, back.headStated]).toEqual([['n'], true]);
    // What the attribution left out is counted on, too.
    expect(back.attribution.otherLines(new Map())).toEqual({ 'accesses to no recorded BAR': 1 });
  });

  test.each([
    ['cut off', (text: string) => text.slice(0, 100), 'is not whole'],
    ['of another shape', (text: string) => text.replace('"position"', '"at"'), 'position'],
    [
      'with a number that is none',
      (text: string) => text.replace('"offset":77', '"offset":"x"'),
      'position.offset',
    ],
  ])('%s is refused, with what is wrong', async (_how, damage, what) => {
    await folder.writeCheckpoint(damage(takeCheckpoint(someState(), AT)));
    const error = await folder.readCheckpoint().catch((it: unknown) => it);
    expect(error).toMatchObject({ code: 'damaged', hint: expect.stringContaining('outputs') });
    expect(JSON.stringify([(error as Error).message, error])).toContain(what);
  });
});

describe('what a recording is', () => {
  test('comes back as it was written', async () => {
    await folder.writeInfo(INFO);
    expect(JSON.parse(JSON.stringify(await folder.readInfo()))).toEqual(
      JSON.parse(JSON.stringify(INFO)),
    );
    expect((await listSessions()).map(({ info, alive }) => [info.id, alive])).toEqual([
      [INFO.id, false],
    ]);
  });

  test('says so where another version wrote it, and is listed all the same', async () => {
    await folder.writeInfo(INFO);
    const path = join(folder.path, 'session.json');
    const text = readFileSync(path, 'utf8');
    writeFileSync(
      path,
      text.replace(/"version":\d+/, '"version":99').replace('"tool":"', '"tool":"9.'),
    );
    const refusal = {
      code: 'refused',
      message: `recording ${INFO.id} was begun by another mmiobridge`,
      evidence: expect.stringMatching(/version 99 \(mmiobridge 9\..*\); this is .* version \d+$/),
      hint: 'resume it with the mmiobridge that began it',
    };
    await expect(folder.readInfo()).rejects.toMatchObject(refusal);
    expect(await listSessions()).toEqual([]);
    const { unreadable } = await findSessions();
    expect(unreadable).toMatchObject([{ id: INFO.id, error: refusal }]);
    // Of before there were versions.
    writeFileSync(path, text.replace(/"version":\d+,/, ''));
    await expect(folder.readInfo()).rejects.toMatchObject({
      evidence: expect.stringContaining('has no version'),
    });
  });

  test.each([
    ['a header without its clock', '"clock":"qemu"', '"clock":"sun"', 'header.clock'],
    ['no process', '"recorder":{', '"recorder":null,"x":{', 'recorder'],
  ])('is refused with %s', async (_what, from, to, where) => {
    await folder.writeInfo(INFO);
    const path = join(folder.path, 'session.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace(from, to));
    await expect(folder.readInfo()).rejects.toMatchObject({
      code: 'damaged',
      evidence: expect.stringContaining(where),
    });
  });
});

test('a journal that somebody else wrote into is refused, with the line', () => {
  const entry = { at: { segment: 1, offset: 0 }, event: { kind: 'mark', timeNs: 1, text: 'a' } };
  writeFileSync(folder.journal, `${JSON.stringify(entry)}\n{"at":{}}\n`);
  expect(() => new Journal(folder.journal, 0)).toThrow(
    expect.objectContaining({ code: 'damaged', message: expect.stringContaining('line 2 of') }),
  );
});
