/** The recorder's loop over a real spool and journal: whatever falls together, no line is lost. */
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Vm } from '../../../../src/machine/vm.ts';
import type { RecordingHeader } from '../../../../src/model/events.ts';
import { Journal } from '../../../../src/recording/session/journal.ts';
import { OutputSet } from '../../../../src/sinks/output-set.ts';
import { Recorder } from '../../../../src/recording/run/recorder.ts';
import { SessionFolder } from '../../../../src/recording/session/session-folder.ts';
import { Spool, segmentPath } from '../../../../src/recording/spool/spool.ts';
import { restoreState } from '../../../../src/recording/session/checkpoint.ts';
import { LogSource } from '../../../../src/recording/source/log/source.ts';

const HEADER: RecordingHeader = {
  tool: 'test',
  source: 'qemu-log',
  startSec: 1,
  startNs: 0,
  textBaseSec: 0,
  clock: 'qemu',
  qemuVersion: '',
  argv: [],
};

let work = '';
let folder: SessionFolder;
let spool: Spool;
let journal: Journal;
beforeEach(async () => {
  work = mkdtempSync(join(tmpdir(), 'recorder-'));
  vi.stubEnv('MMIOBRIDGE_RUN', work);
  folder = new SessionFolder('test');
  mkdirSync(folder.path);
  spool = await Spool.create(folder.spool);
  journal = new Journal(folder.journal);
  // The first address says where the BAR is.
  logs(1, '7@1.000001:pci_update_mappings_add vfio-pci 00:03.0 0,0xfeb80000+0x1000\n');
});
afterEach(async () => {
  await spool.close();
  vi.unstubAllEnvs();
  rmSync(work, { recursive: true });
});

const logs = (segment: number, text: string) =>
  appendFileSync(segmentPath(folder.spool, segment), text);
const write = (value: number) =>
  `7@1.000002:vfio_region_write  (0000:01:00.0:region0+0x10, 0x${value}, 4)\n`;
const sizeOf = async () => (await spool.end()).offset;
const markAt = (text: string, segment: number, offset: number) =>
  journal.add({ at: { segment, offset }, event: { kind: 'mark', timeNs: 2000, text } });

/** Records all that there is; the values written and the user's marks, in the order of the log. */
async function record(vm?: Partial<Vm>): Promise<string[]> {
  const state = restoreState([], undefined);
  const source = LogSource.open(
    {
      folder,
      spool,
      vm: vm as Vm | undefined,
      launched: false,
      header: HEADER,
      attribution: state.attribution,
      overflow: 'pause',
      userLog: undefined,
      notice: () => undefined,
    },
    { info: { traceEvents: [], restore: null, trace: null }, trace: undefined, aligned: false },
  );
  source.decoder.beginSegment(1, 0);
  state.attribution.targets = source.decoder.targets;
  const path = join(work, 'out.mmiotrace');
  const outputs = await OutputSet.open([path], {});
  await outputs.begin(HEADER);
  const recorder = new Recorder({
    folder,
    header: HEADER,
    spool,
    journal,
    source,
    state,
    outputs,
    vm: vm as Vm | undefined,
    refreshDevices: () => Promise.resolve(),
    lookAtMemory: () => Promise.resolve([]),
    userLog: undefined,
    notice: () => undefined,
    launched: false,
  });
  await recorder.run();
  return readFileSync(path, 'utf8')
    .split('\n')
    .map((line) => /^W .* 0x(\d) 0x0 0$|^MARK \S+ (?!mmiobridge)(.*)$/.exec(line))
    .flatMap((match) => match?.[1] ?? match?.[2] ?? []);
}

test('marks at the very beginning, and several at one place', async () => {
  markAt('a', 1, 0);
  markAt('b', 1, 0);
  logs(1, write(1));
  const middle = await sizeOf();
  logs(1, write(2));
  markAt('c', 1, middle);
  markAt('d', 1, middle);
  markAt('e', 1, await sizeOf());
  expect(await record()).toEqual(['a', 'b', '1', 'c', 'd', '2', 'e']);
});

test('a last mark, at a place that has been read before', async () => {
  markAt('a', 1, 0);
  logs(1, write(1));
  expect(await record()).toEqual(['a', '1']);
});

test('a segment that QEMU began although its answer was lost', async () => {
  logs(1, write(1));
  logs(2, write(2));
  logs(3, write(3));
  expect(spool.behind).toBe(false);
  expect(await record()).toEqual(['1', '2', '3']);
});

test.each([
  ['lines', false, ['1', '2', '3']],
  ['a mark and lines', true, ['1', 'm', '2', '3']],
])('%s that come into a segment while it is being left', async (_, marked, expected) => {
  logs(1, write(1));
  logs(2, write(3));
  spool.advanceWriter();
  let ended = (_end: { exit: undefined }): void => undefined;
  const path = segmentPath(folder.spool, 1);
  const asked: string[] = [];
  const values = await record({
    ended: new Promise((resolve) => (ended = resolve)),
    writtenFiles: () => undefined,
    // Asked of QEMU when the segment has been read to its end: the last moment for what follows.
    holdsOpen: (of) => {
      if (asked.push(of) > 1) return false;
      if (marked) markAt('m', 1, readFileSync(path).length);
      logs(1, write(2));
      setTimeout(() => ended({ exit: undefined }), 100);
      return false;
    },
  });
  expect(asked[0]).toBe(path);
  expect(values).toEqual(expected);
});
