/** A recording whose QEMU and source are the test's. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';
import { Failure } from '../../src/base/failure.ts';
import type { Vm } from '../../src/machine/vm.ts';
import type { QmpEvent } from '../../src/qmp/protocol.ts';
import { RunningRecording } from '../../src/recording/run/running-recording.ts';
import { restoreState } from '../../src/recording/session/checkpoint.ts';
import { Journal } from '../../src/recording/session/journal.ts';
import { SessionFolder } from '../../src/recording/session/session-folder.ts';
import type { RecordingSource } from '../../src/recording/source/recording-source.ts';
import { Spool } from '../../src/recording/spool/spool.ts';
import { OutputSet } from '../../src/sinks/output-set.ts';
import { QemuLogDecoder } from '../../src/sources/qemu-log/decoder.ts';
import { HEADER } from './captures.ts';

export interface FakeRecording extends AsyncDisposable {
  readonly recording: RunningRecording;
  readonly folder: SessionFolder;
  readonly failure: Failure;
  readonly notices: readonly string[];
  /** What QEMU was asked to do, in order. */
  readonly asked: readonly string[];
  readonly output: string;
  /** QEMU says something. */
  readonly say: (event: QmpEvent) => void;
  /** QEMU ends. */
  readonly end: () => void;
}

/** @param overrides of the source and of the VM */
export async function fakeRecording(
  overrides: {
    readonly source?: Partial<RecordingSource>;
    readonly vm?: Partial<Record<'pause' | 'isRunning', () => Promise<unknown>>>;
  } = {},
): Promise<FakeRecording> {
  const work = mkdtempSync(join(tmpdir(), 'mmiobridge-running-'));
  vi.stubEnv('MMIOBRIDGE_RUN', work);
  const folder = new SessionFolder('test');
  mkdirSync(folder.path);
  const spool = await Spool.create(folder.spool);
  const output = join(work, 'out.mmiotrace');
  const outputs = await OutputSet.open([output], {});
  await outputs.begin(HEADER);
  const failure = new Failure();
  const notices: string[] = [];
  const asked: string[] = [];
  let end = (): void => undefined;
  let say: (event: QmpEvent) => void = () => undefined;
  const vm = {
    ended: new Promise((resolve) => (end = () => resolve({ exit: undefined }))),
    qmp: { state: 'ready', close: async () => undefined },
    isAlive: true,
    onEvent: (listener: typeof say) => {
      say = listener;
      return () => undefined;
    },
    isRunning: async () => true,
    pause: async () => void asked.push('pause'),
    ...overrides.vm,
  } as unknown as Vm;
  const decoder = new QemuLogDecoder({ start: { sec: 1, ns: 0 } });
  decoder.beginSegment(1, 0);
  const source: RecordingSource = {
    decoder,
    info: null,
    writer: {
      logInto: async () => undefined,
      trace: async () => undefined,
      holdsOpen: () => false,
      disturbance: async () => undefined,
    },
    seen: 'none',
    losesWhenFull: true,
    stderrBytes: Infinity,
    failure: failure.promise,
    readLimit: () => undefined,
    onRead: () => undefined,
    onReadAll: () => undefined,
    complete: () => undefined,
    caughtUp: async () => undefined,
    onEnding: () => undefined,
    detach: async () => void asked.push('detach'),
    finish: async () => undefined,
    notes: () => [],
    snapshot: () => null,
    stop: () => void asked.push('stop'),
    ...overrides.source,
  };
  const recording = new RunningRecording({
    info: {
      id: 'test',
      recorder: { pid: process.pid, startTime: 0 },
      qemu: undefined,
      launched: false,
      qmpAddress: '',
      spoolDir: spool.dir,
      header: HEADER,
      selection: [],
      outputs: [output],
      overflow: 'pause',
      spoolLimitBytes: 2 ** 30,
      userLog: undefined,
      source: 'log',
      sourceInfo: null,
    },
    notice: (message) => void notices.push(message),
    pausedByUs: false,
    remote: undefined,
    parts: {
      folder,
      header: HEADER,
      spool,
      journal: new Journal(folder.journal),
      source,
      state: restoreState([], undefined),
      outputs,
      vm,
      refreshDevices: async () => undefined,
      lookAtMemory: async () => [],
      userLog: undefined,
      launched: false,
      notice: (message) => void notices.push(message),
    },
  });
  await recording.start();
  return {
    recording,
    folder,
    failure,
    notices,
    asked,
    output,
    say: (event) => say(event),
    end: () => end(),
    async [Symbol.asyncDispose]() {
      await outputs.abandon();
      vi.unstubAllEnvs();
      rmSync(work, { recursive: true, force: true });
    },
  };
}
