/**
 * A recording that runs: the recorder's loop, the guard of its spool, QMP's events, and the socket
 * through which `mark`, `status` and `stop` reach it.
 */
import type { Server } from 'node:net';
import { messageOf } from '../../base/errors.ts';
import { accessesByDevice } from '../../analysis/region-counts.ts';
import type { QmpEvent } from '../../qmp/client.ts';
import { serveControl, type ControlRequest } from '../session/control-socket.ts';
import { SpoolGuard } from './spool-guard.ts';
import type { Notice } from '../../base/notice.ts';
import { Recorder, type RecorderParts, type RecordingEnd } from './recorder.ts';
import type { RemoteOutput } from '../session/remote.ts';
import type { RecordingStatus } from '../session/status.ts';
import type { SessionInfo } from '../session/session-folder.ts';

/** QMP events that change what the guest may do to its devices, and what we call them. */
const VM_STATES: Readonly<Record<string, string>> = {
  STOP: 'paused',
  RESUME: 'running',
  RESET: 'reset',
  SHUTDOWN: 'shutdown',
  POWERDOWN: 'powerdown',
  SUSPEND: 'suspended',
  WAKEUP: 'wakeup',
  GUEST_PANICKED: 'guest panicked',
};

export interface RunningRecordingOptions {
  readonly parts: RecorderParts;
  readonly info: SessionInfo;
  readonly notice: Notice;
  readonly pausedByUs: boolean;
  /** How the recording is taken off QEMU when it is ended; QEMU logs elsewhere afterwards. */
  readonly detach: () => Promise<void>;
  readonly remote: RemoteOutput | undefined;
}

export class RunningRecording {
  readonly #options: RunningRecordingOptions;
  readonly #recorder: Recorder;
  readonly #guard: SpoolGuard | undefined;
  #server: Server | undefined;
  #stalled: string | undefined;
  #ending: Promise<void> | undefined;
  #unsubscribe: () => void = () => undefined;

  constructor(options: RunningRecordingOptions) {
    this.#options = options;
    const { parts, info } = options;
    this.#recorder = new Recorder(parts);
    if (parts.vm !== undefined) {
      this.#guard = new SpoolGuard({
        spool: parts.spool,
        journal: parts.journal,
        vm: parts.vm,
        writer: parts.kvm?.writer ?? parts.plugin ?? parts.vm,
        overflow: info.overflow,
        limitBytes: info.spoolLimitBytes,
        pausedFlag: parts.dir.pausedFlag,
        droppingFlag: parts.dir.droppingFlag,
        alreadyPaused: options.pausedByUs,
        nowNs: () => this.#recorder.nowNs(),
        onProblem: options.notice,
      });
    }
  }

  /**
   * Begins; resolves when the recording can be gone on with, marks and status are answered and
   * events are listened for.
   */
  async start(): Promise<void> {
    const { parts } = this.#options;
    await this.#recorder.begin();
    this.#server = await serveControl(parts.dir.controlSocket, (request) => this.#answer(request));
    this.#options.remote?.serve((request) => this.#answer(request));
    if (parts.vm !== undefined) {
      const { vm } = parts;
      this.#unsubscribe = vm.onEvent((event) => {
        this.#onEvent(event).catch((error: unknown) => this.#options.notice(messageOf(error)));
      });
      await this.#guard?.start();
    }
  }

  /** Runs to the end of the recording, and cleans up behind it. */
  async run(): Promise<RecordingEnd> {
    const { parts } = this.#options;
    try {
      return await this.#recorder.run();
    } catch (error) {
      await this.#standStill();
      throw error;
    } finally {
      await this.#guard?.stop();
      this.#unsubscribe();
      this.#server?.close();
      parts.pc?.close();
      parts.kvm?.poll.stop();
      parts.kvm?.writer?.stop();
      parts.plugin?.stop();
      await this.#ending;
      await parts.vm?.qmp.close();
      await parts.spool.close();
    }
  }

  /** The outputs cannot go on: so that nothing is lost, the guest waits for `resume`. */
  async #standStill(): Promise<void> {
    const { parts } = this.#options;
    await this.#guard?.stop();
    if (!this.canResume || parts.vm === undefined || parts.vm.qmp.state === 'closed') return;
    const { vm } = parts;
    // A guest that somebody else has paused is not ours to let go again.
    if (!(await vm.isRunning().catch(() => false))) return;
    await parts.dir.setPaused();
    await vm.pause().catch(() => undefined);
  }

  /** A file can be gone on with; standard output cannot. */
  get canResume(): boolean {
    return !this.#options.info.outputs.includes('-');
  }

  /** Ends the recording: takes it off QEMU; `run` then finishes with what is in the spool. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    await this.#guard?.stop();
    try {
      await this.#options.detach();
    } finally {
      this.#recorder.sourceEnded();
    }
  }

  /** An output is stuck, or (`undefined`) goes on. */
  onStall(reason: string | undefined): void {
    this.#stalled = reason;
    this.#options.notice(
      reason === undefined ? 'the output has room again' : `waiting for room: ${reason}`,
    );
  }

  /** Puts a MARK at this moment. */
  async mark(text: string): Promise<{ readonly timeNs: number }> {
    const { spool, journal, plugin } = this.#options.parts;
    const timeNs = this.#recorder.nowNs();
    await plugin?.caughtUp();
    const at = await spool.end();
    journal.add({ at, event: { kind: 'mark', timeNs, text } });
    return { timeNs };
  }

  async #onEvent(event: QmpEvent): Promise<void> {
    const state = VM_STATES[event.name];
    if (state === undefined) return;
    const { spool, journal, header } = this.#options.parts;
    const timeNs = (event.timestampUs - header.startSec * 1e6) * 1000 - header.startNs;
    const at = await spool.end();
    journal.add({ at, event: { kind: 'vm-state', timeNs, state } });
  }

  async status(): Promise<RecordingStatus> {
    const { info, parts } = this.#options;
    const { tables, regions, totals } = parts.counts;
    const held = this.#guard?.paused === true ? 'guest paused' : 'recording';
    const recording = this.#guard?.dropping === true ? 'dropping' : held;
    return {
      session: info.id,
      elapsedSeconds: this.#recorder.nowNs() / 1e9,
      counters: this.#recorder.counters,
      devices: accessesByDevice(regions, tables),
      marks: totals.marks,
      spoolBytes: await parts.spool.usedBytes(),
      spoolLimitBytes: info.spoolLimitBytes,
      state: this.#ending === undefined ? recording : 'draining',
      stalled: this.#stalled ?? null,
      qemuPid: info.qemu?.pid ?? null,
      recorderPid: process.pid,
      outputs: info.outputs,
      collector: this.#options.remote?.state ?? null,
    };
  }

  async #answer(request: ControlRequest): Promise<unknown> {
    switch (request.request) {
      case 'mark':
        return this.mark(request.text);
      case 'status':
        return this.status();
      case 'stop':
        void this.end().catch((error: unknown) => this.#options.notice(String(error)));
        return { ending: true };
    }
  }
}
