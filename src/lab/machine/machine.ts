/** The VM of a run with its recording, its agent and its ports: what steps have their hands on. */
import { MmioError, describeError } from '../../base/errors.ts';
import type { Started } from '../../recording/begin/assemble.ts';
import { closeSession } from '../../recording/begin/close.ts';
import type { RecordingEnd } from '../../recording/run/recorder.ts';
import type { RunningRecording } from '../../recording/run/running-recording.ts';
import type { RecordingStatus } from '../../recording/session/status.ts';
import type { Vm } from '../../machine/vm.ts';
import { GuestAgent } from '../../qmp/agent/guest-agent.ts';
import type { QmpClient, QmpEvent } from '../../qmp/client.ts';
import { endRecording } from './end-recording.ts';
import type { GuestMarks } from './guest-marks.ts';
import type { SerialPort } from './serial-port.ts';
import type { StreamWatch } from './stream-watch.ts';

export interface MachineParts {
  readonly started: Started;
  readonly vm: Vm;
  readonly watch: StreamWatch;
  readonly ports: ReadonlyMap<string, SerialPort>;
  /** Socket of the agent's chardev. */
  readonly agentSocket: string | undefined;
}

/** More events than a run of days has are not kept. */
const MAX_EVENTS = 10_000;
const TERMINATE_MS = 3000;

/** How a recording ended. */
export type MachineEnd =
  | {
      readonly kind: 'ended';
      readonly end: RecordingEnd;
      readonly status: RecordingStatus;
      /** What QEMU said last, of one that we started. */
      readonly words: string;
    }
  | { readonly kind: 'failed'; readonly error: unknown };

export class Machine {
  readonly watch: StreamWatch;
  readonly ports: ReadonlyMap<string, SerialPort>;
  /** Settles when the recording has ended, by whatever. Never rejects. */
  readonly ended: Promise<MachineEnd>;
  /** QMP's events so far, each once. */
  readonly events: QmpEvent[] = [];
  /** How many events there were when a step began, by its name. */
  readonly eventsAt = new Map<string, number>();
  marks: GuestMarks | undefined;
  readonly #parts: MachineParts;
  readonly #running: Promise<RecordingEnd>;
  #end: MachineEnd | undefined;
  #agent: Promise<GuestAgent> | undefined;

  constructor(parts: MachineParts) {
    this.#parts = parts;
    this.watch = parts.watch;
    this.ports = parts.ports;
    parts.vm.onEvent((event) => {
      if (this.events.length < MAX_EVENTS) this.events.push(event);
      this.#onEvent(event);
    });
    this.#running = parts.started.recording.run();
    this.ended = this.#watch();
  }

  async #watch(): Promise<MachineEnd> {
    const { started } = this.#parts;
    let result: MachineEnd;
    try {
      const end = await this.#running;
      const status = await started.recording.status();
      result = { kind: 'ended', end, status, words: await closeSession(started) };
    } catch (error) {
      await started.child?.terminate(TERMINATE_MS);
      result = { kind: 'failed', error };
    }
    return (this.#end ??= result);
  }

  /** undefined while it runs. */
  get end(): MachineEnd | undefined {
    return this.#end;
  }

  get started(): Started {
    return this.#parts.started;
  }

  get vm(): Vm {
    return this.#parts.vm;
  }

  get recording(): RunningRecording {
    return this.#parts.started.recording;
  }

  /** QMP's connection, made again where it was lost. */
  qmp(): Promise<QmpClient> {
    return this.#parts.vm.connected();
  }

  /** A command of the human monitor that says nothing where it worked. Throws MmioError `refused`. */
  async hmp(command: string, what: string, hint?: string, timeoutMs?: number): Promise<void> {
    await this.hmpSays(command, /^$/, what, hint, timeoutMs);
  }

  /** One that says something where it worked. Throws MmioError `refused`. */
  async hmpSays(
    command: string,
    good: RegExp,
    what: string,
    hint?: string,
    timeoutMs?: number,
  ): Promise<void> {
    const limit = timeoutMs === undefined ? {} : { timeoutMs };
    const words = (await (await this.qmp()).hmp(command, limit)).trim();
    if (good.test(words)) return;
    throw new MmioError('refused', `QEMU refused to ${what}`, {
      evidence: `${command}: ${words}`,
      hint,
    });
  }

  /** The guest's agent; whether one answers its first command tells. Throws MmioError. */
  agent(): Promise<GuestAgent> {
    const { agentSocket } = this.#parts;
    if (agentSocket === undefined) {
      throw new MmioError('refused', 'this VM has no guest agent', {
        hint: 'give the start step `agent: true`, or name its socket where you attach',
      });
    }
    this.#agent ??= GuestAgent.connect(agentSocket).catch((error: unknown) => {
      this.#agent = undefined;
      throw error;
    });
    return this.#agent;
  }

  /** A reset takes the agent with it, and what it was doing; QEMU says so. */
  #onEvent(event: QmpEvent): void {
    const isAgent =
      event.name === 'VSERPORT_CHANGE' && event.data['open'] === false && this.#isAgentPort(event);
    const reason = isAgent
      ? 'its port was closed in the guest'
      : event.name === 'RESET'
        ? 'the guest was reset'
        : undefined;
    if (reason === undefined || this.#agent === undefined) return;
    void this.#agent.then(
      (agent) => agent.lost(reason),
      () => undefined,
    );
  }

  #isAgentPort({ data }: QmpEvent): boolean {
    return typeof data['id'] === 'string' && /qga|agent/.test(data['id']);
  }

  port(name: string | undefined): SerialPort {
    const known = [...this.ports.keys()];
    const wanted = name ?? known[0];
    const port = wanted === undefined ? undefined : this.ports.get(wanted);
    if (port !== undefined) return port;
    throw new MmioError('not-found', `there is no serial port ${name ?? ''}`.trimEnd(), {
      evidence: `there is: ${known.join(', ') || 'none'}`,
      hint: 'name the ports where the VM is started: serial: [console]',
    });
  }

  /** Ends the recording, and a VM that we started; what was recorded is then in its outputs. */
  async stop(): Promise<MachineEnd> {
    await this.marks?.stop().catch(() => undefined);
    // It was waited for once, and may be waiting for room still.
    if (this.#end !== undefined) return this.#end;
    try {
      await endRecording(this.recording, this.#running);
    } catch (error) {
      this.#end ??= { kind: 'failed', error };
      return this.#end;
    }
    return this.ended;
  }

  async close(): Promise<void> {
    for (const port of this.ports.values()) port.close();
    const agent = await this.#agent?.catch(() => undefined);
    await agent?.[Symbol.asyncDispose]();
  }
}

/** On one line, for people. */
export function describeEnd(end: MachineEnd): string {
  if (end.kind === 'failed') return `the recording failed: ${describeError(end.error)}`;
  const { exit } = end.end.vm ?? {};
  if (exit?.signal) return `QEMU was ended by ${exit.signal}`;
  return exit?.code ? `QEMU ended with status ${exit.code}` : 'the VM has ended';
}
