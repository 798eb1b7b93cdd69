/** A running QEMU, however we came by it: its log, its trace events, its guest, and its end. */
import type { QmpClient } from '../qmp/client.ts';
import { redirectLog } from './log-control.ts';
import { isAlive, openFilesOf } from './proc.ts';
import type { QemuExit, QemuProcess } from './process.ts';
import { setTraceEvents } from './trace-control.ts';

/** How a VM went away; `undefined` exit: it was not our child, so nobody told us. */
export interface VmEnd {
  readonly exit: QemuExit | undefined;
}

export interface VmProcess {
  readonly pid: number;
  readonly startTime: number;
}

const ALIVE_POLL_MS = 100;
/** A QEMU that does not answer QMP for longer gets a signal instead. */
const QUIT_GRACE_MS = 3000;

export class Vm {
  readonly qmp: QmpClient;
  /** undefined where QEMU runs out of our sight (another host or PID namespace). */
  readonly process: VmProcess | undefined;
  /** Settles once; never rejects. */
  readonly ended: Promise<VmEnd>;
  readonly #child: QemuProcess | undefined;
  readonly #traceEvents: readonly string[];

  /** @param traceEvents the events and patterns that the recording needs */
  constructor(
    qmp: QmpClient,
    options: {
      readonly process: VmProcess | undefined;
      readonly child?: QemuProcess;
      readonly traceEvents: readonly string[];
    },
  ) {
    this.qmp = qmp;
    this.process = options.process;
    this.#child = options.child;
    this.#traceEvents = options.traceEvents;
    this.ended =
      options.child === undefined
        ? this.#watch()
        : options.child.exited.then((exit): VmEnd => ({ exit }));
  }

  /** Not our child: over when its process is gone, or, where we cannot see it, when QMP closes. */
  async #watch(): Promise<VmEnd> {
    await this.qmp.closed;
    const { process } = this;
    while (process !== undefined && isAlive(process.pid, process.startTime)) {
      await new Promise((resolve) => setTimeout(resolve, ALIVE_POLL_MS).unref());
    }
    return { exit: undefined };
  }

  /** Has QEMU log into a new segment. Throws MmioError `refused` with QEMU's words. */
  logInto(path: string): Promise<void> {
    return redirectLog(this.qmp, path);
  }

  trace(on: boolean): Promise<void> {
    return setTraceEvents(this.qmp, this.#traceEvents, on);
  }

  async pause(): Promise<void> {
    await this.qmp.execute('stop');
  }

  async resume(): Promise<void> {
    await this.qmp.execute('cont');
  }

  async isRunning(): Promise<boolean> {
    const status = await this.qmp.execute<{ readonly running?: boolean }>('query-status');
    return status.running === true;
  }

  /** Whether QEMU has this file open; undefined where we may not look. */
  holdsOpen(path: string): boolean | undefined {
    return this.process === undefined ? undefined : openFilesOf(this.process.pid)?.includes(path);
  }

  /** Ends a VM that we started. Resolves when it is gone. */
  async quit(): Promise<void> {
    await this.qmp.execute('quit', undefined, { timeoutMs: QUIT_GRACE_MS }).catch(() => undefined);
    const gone = this.ended.then(() => true);
    const late = new Promise<boolean>((resolve) =>
      setTimeout(() => resolve(false), QUIT_GRACE_MS).unref(),
    );
    if (await Promise.race([gone, late])) return;
    if (this.#child !== undefined) await this.#child.terminate(QUIT_GRACE_MS);
    else if (this.process !== undefined) process.kill(this.process.pid, 'SIGKILL');
    await this.ended;
  }
}
