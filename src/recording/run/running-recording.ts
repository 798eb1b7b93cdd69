/**
 * A recording that runs: the recorder's loop, the guard of its spool, QMP's events, and the socket
 * through which `mark`, `status` and `stop` reach it.
 */
import type { Server } from 'node:net';
import { describeError, messageOf } from '../../base/errors.ts';
import { log } from '../../base/log.ts';
import { accessesByDevice } from '../../analysis/region-counts.ts';
import type { QmpEvent } from '../../qmp/client.ts';
import { serveControl, type ControlRequest } from '../session/control-socket.ts';
import { RoomWatch } from './room-watch.ts';
import { SpoolGuard } from './spool-guard.ts';
import type { Watching } from './watching.ts';
import type { Notice } from '../../base/notice.ts';
import { Recorder, type RecorderParts, type RecordingEnd } from './recorder.ts';
import type { RemoteOutput } from '../session/remote.ts';
import type { RecordingStatus } from '../session/status.ts';
import type { SessionInfo } from '../session/info.ts';

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
  readonly remote: RemoteOutput | undefined;
}

export class RunningRecording {
  readonly #options: RunningRecordingOptions;
  readonly #recorder: Recorder;
  readonly #guard: SpoolGuard | undefined;
  readonly #room: RoomWatch | undefined;
  #server: Server | undefined;
  #stalled: string | undefined;
  #standsStill = false;
  #ending: Promise<void> | undefined;
  #events: Promise<void> = Promise.resolve();
  #unsubscribe: () => void = () => undefined;

  constructor(given: RunningRecordingOptions) {
    const notice: Notice = (message) => {
      log('recording', () => message);
      given.notice(message);
    };
    const options = { ...given, notice };
    this.#options = options;
    const { parts, info } = options;
    log('recording', () => `session ${JSON.stringify(info)}`);
    this.#recorder = new Recorder(parts);
    const { writer } = parts.source;
    const watching: Watching = {
      spool: parts.spool,
      journal: parts.journal,
      goodNs: parts.state.attribution.lastTimeNs,
      nowNs: () => this.#recorder.nowNs(),
      onProblem: options.notice,
    };
    const { fullFlag } = parts.folder;
    if (parts.source.losesWhenFull) this.#room = new RoomWatch({ ...watching, fullFlag });
    if (parts.vm !== undefined && writer !== undefined) {
      this.#guard = new SpoolGuard({
        ...watching,
        room: this.#room,
        vm: parts.vm,
        writer,
        overflow: info.overflow,
        limitBytes: info.spoolLimitBytes,
        pausedFlag: parts.folder.pausedFlag,
        droppingFlag: parts.folder.droppingFlag,
        alreadyPaused: options.pausedByUs,
      });
    }
  }

  /**
   * Begins; resolves when the recording can be resumed, marks and status are answered and
   * events are listened for.
   */
  async start(): Promise<void> {
    const { parts } = this.#options;
    this.#room?.start();
    if (parts.vm === undefined) await this.#room?.finish();
    await this.#recorder.begin();
    this.#server = await serveControl(parts.folder.controlSocket, (request) =>
      this.#answer(request),
    );
    this.#options.remote?.serve((request) => this.#answer(request));
    if (parts.vm !== undefined) {
      const { vm } = parts;
      this.#unsubscribe = vm.onEvent((event) => {
        // One after the other: what they tell has an order.
        this.#events = this.#events
          .then(() => this.#onEvent(event))
          .catch((error: unknown) => this.#options.notice(messageOf(error)));
      });
      await this.#guard?.start();
    }
  }

  /** Lets go of what `start` has begun, where it failed. */
  async discard(): Promise<void> {
    await this.#guard?.stop();
    this.#unsubscribe();
    this.#server?.close();
    await this.#options.parts.spool.close();
  }

  /** Runs to the end of the recording, and cleans up behind it. */
  async run(): Promise<RecordingEnd> {
    const { parts } = this.#options;
    try {
      const end = await this.#recorder.run();
      log('recording', () => `ended: ${JSON.stringify(end.counters)}`);
      return end;
    } catch (error) {
      log(
        'recording',
        () => `failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
      await this.#standStill();
      throw error;
    } finally {
      await this.#guard?.stop();
      this.#unsubscribe();
      this.#server?.close();
      parts.source.stop();
      await this.#ending;
      await parts.vm?.qmp.close();
      await parts.spool.close();
    }
  }

  /** Of a recording that has failed: the guest stands still until it is resumed, is gone, or goes on. */
  get guestState(): 'paused' | 'ended' | 'running' {
    if (this.#standsStill) return 'paused';
    return this.#options.parts.vm?.isAlive === true ? 'running' : 'ended';
  }

  /** The outputs cannot go on: so that nothing is lost, the guest waits for `resume`. */
  async #standStill(): Promise<void> {
    const { parts } = this.#options;
    await this.#guard?.stop();
    if (!this.canResume || parts.vm === undefined || parts.vm.qmp.state === 'closed') return;
    const { vm } = parts;
    // A guest that is paused already, by whomever, stands still, and is not ours to let go again.
    if (!(await vm.isRunning().catch(() => true))) {
      this.#standsStill = true;
      return;
    }
    try {
      await parts.folder.setPaused();
      await vm.pause();
      this.#standsStill = true;
    } catch (error) {
      this.#options.notice(`the guest could not be paused: ${describeError(error)}`);
    }
  }

  /** A file can be resumed; standard output cannot. */
  get canResume(): boolean {
    return !this.#options.info.outputs.includes('-');
  }

  /** Ends the recording: takes it off QEMU; `run` then finishes with what is in the spool. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  /** Never throws: what is recorded is recorded, whatever becomes of QEMU. */
  async #end(): Promise<void> {
    const { parts, info, notice } = this.#options;
    const { vm, source } = parts;
    try {
      await this.#guard?.finish();
      source.onEnding();
      if (vm !== undefined) await (info.launched ? vm.quit() : source.detach(vm));
    } catch (error) {
      notice(`the recording could not be taken off QEMU as it should: ${describeError(error)}`);
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

  /** Puts a MARK at this moment. Throws MmioError `closed` where the recording has ended. */
  async mark(text: string): Promise<{ readonly timeNs: number }> {
    const { spool, journal, source } = this.#options.parts;
    const timeNs = this.#recorder.nowNs();
    await source.caughtUp();
    const at = await spool.end();
    journal.add({ at, event: { kind: 'mark', timeNs, text } });
    return { timeNs };
  }

  async #onEvent(event: QmpEvent): Promise<void> {
    log('qemu', () => `event ${event.name}`);
    const state = VM_STATES[event.name];
    if (state === undefined) return;
    const { spool, journal, header, source } = this.#options.parts;
    const timeNs = (event.timestampUs - header.startSec * 1e6) * 1000 - header.startNs;
    await source.caughtUp();
    const at = await spool.end();
    // Of a QEMU that goes on without us.
    if (journal.isClosed) return;
    journal.add({ at, event: { kind: 'vm-state', timeNs, state } });
  }

  async status(): Promise<RecordingStatus> {
    const { info, parts } = this.#options;
    const { tables, regions, totals } = parts.state.counts;
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
        void this.end();
        return { ending: true };
    }
  }
}
