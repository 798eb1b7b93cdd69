/** A running QEMU, however we came by it: its log, its guest, and its end. */
import { MmioError } from '../base/errors.ts';
import { QmpClient } from '../qmp/client.ts';
import type { QmpEvent } from '../qmp/protocol.ts';
import { redirectLog } from './log-control.ts';
import { filesWrittenBy, isAlive, openFilesOf } from './proc.ts';
import type { QemuExit, QemuProcess } from './process.ts';
import { qemuProcess } from './vcpus.ts';

/** How a VM went away; `undefined` exit: it was not our child, so nobody told us. */
export interface VmEnd {
  readonly exit: QemuExit | undefined;
}

export interface VmProcess {
  readonly pid: number;
  readonly startTime: number;
}

const ALIVE_POLL_MS = 100;
/** A QEMU that ends closes its monitor first: only what lives on for longer has lost it. */
const LOST_AFTER_MS = 1000;
/** How long the answer of one attempt to connect again stands. */
const REGAIN_EVERY_MS = 500;
const REGAIN_LIMIT_MS = 2000;
/** After its guest has shut down; it takes no more than some of this to close its devices. */
const HANGS_AFTER_MS = 2000;
/** A QEMU that does not answer QMP for longer gets a signal instead. */
const QUIT_GRACE_MS = 3000;

export class Vm {
  /** undefined where QEMU runs out of our sight (another host or PID namespace). */
  readonly process: VmProcess | undefined;
  /** Settles once; never rejects. */
  readonly ended: Promise<VmEnd>;
  readonly #child: QemuProcess | undefined;
  readonly #address: string;
  readonly #onProblem: (message: string) => void;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #qmp: QmpClient;
  #isEnding = false;
  #regaining: Promise<QmpClient> | undefined;

  constructor(
    qmp: QmpClient,
    options: {
      /** Where `qmp` was connected to: should it be lost, it is connected there again. */
      readonly address: string;
      readonly process: VmProcess | undefined;
      readonly child?: QemuProcess;
      readonly onProblem: (message: string) => void;
    },
  ) {
    this.#qmp = this.#listenTo(qmp);
    this.#address = options.address;
    this.#onProblem = options.onProblem;
    this.process = options.process;
    this.#child = options.child;
    this.ended =
      options.child === undefined
        ? this.#watch()
        : options.child.exited.then((exit): VmEnd => ({ exit }));
  }

  /** The connection as it is now; it may be lost. */
  get qmp(): QmpClient {
    return this.#qmp;
  }

  /**
   * The connection; made again if it was lost while QEMU lives on. Throws MmioError as
   * `QmpClient.connect`, `refused` if another QEMU answers there.
   */
  connected(): Promise<QmpClient> {
    if (this.#qmp.state === 'ready') return Promise.resolve(this.#qmp);
    this.#regaining ??= this.#regain().finally(() => {
      setTimeout(() => (this.#regaining = undefined), REGAIN_EVERY_MS).unref();
    });
    return this.#regaining;
  }

  async #regain(): Promise<QmpClient> {
    const qmp = await QmpClient.connect(this.#address, { connectTimeoutMs: REGAIN_LIMIT_MS });
    try {
      await this.#requireSame(qmp);
    } catch (error) {
      await qmp.close();
      throw error;
    }
    this.#qmp = this.#listenTo(qmp);
    this.#onProblem('the QMP connection is back');
    return qmp;
  }

  #listenTo(qmp: QmpClient): QmpClient {
    qmp.onEvent((event) => {
      if (event.name === 'SHUTDOWN') this.#onShutdown();
      else if (event.name === 'RESET' || event.name === 'RESUME') this.#isEnding = false;
      for (const listener of this.#listeners) listener(event);
    });
    return qmp;
  }

  /**
   * The guest has shut down, and QEMU ends if nothing keeps it. One that has a question before it
   * just then may hang for good (QEMU 10.0, in monitor_cleanup): what need not be asked is not.
   */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  #onShutdown(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    setTimeout(() => void this.#freeHung().catch(() => undefined), HANGS_AFTER_MS).unref();
  }

  /** SIGTERM wakes it, and asks of it what it is about to do anyway. */
  async #freeHung(): Promise<void> {
    const { process: vm } = this;
    const mayHang = () => this.#isEnding && vm !== undefined && this.isAlive;
    if (!mayHang()) return;
    const limit = { timeoutMs: HANGS_AFTER_MS };
    const answered = await this.#qmp.execute('query-status', undefined, limit).then(
      () => true,
      () => false,
    );
    // It lives on as it was told to (-no-shutdown).
    if (answered || !mayHang() || vm === undefined) return;
    this.#onProblem(
      `QEMU (process ${vm.pid}) hangs at its end: it is sent SIGTERM, which frees it`,
    );
    process.kill(vm.pid, 'SIGTERM');
  }

  /** Calls `listener` with QEMU's events, also when the connection is another; returns what ends that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async #requireSame(qmp: QmpClient): Promise<void> {
    if (this.process === undefined) return;
    const pid = (await qemuProcess(qmp))?.pid;
    if (pid === this.process.pid) return;
    throw new MmioError('refused', 'another QEMU answers at the QMP socket', {
      evidence: `${this.#address}: process ${pid ?? 'unknown'}, not ${this.process.pid}`,
      hint: 'give the QEMU that is recorded its socket back',
    });
  }

  /** Not our child: over when its process is gone, or, where we cannot see it, when QMP closes. */
  async #watch(): Promise<VmEnd> {
    const failure = await this.#qmp.closed;
    const { process } = this;
    const lostAtMs = performance.now();
    let told = failure === undefined;
    while (process !== undefined && isAlive(process.pid, process.startTime)) {
      if (!told && performance.now() - lostAtMs > LOST_AFTER_MS) {
        told = true;
        this.#onProblem(
          `the QMP connection was lost, but QEMU (process ${process.pid}) still runs: the recording goes on, and connects to ${this.#address} again when it has to`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, ALIVE_POLL_MS).unref());
    }
    return { exit: undefined };
  }

  /**
   * Has QEMU log into a new segment. Throws MmioError `refused` with QEMU's words, or where it has
   * left the segment `from` already.
   */
  async logInto(path: string, from?: string): Promise<void> {
    const isStillOurs = () => from === undefined || this.holdsOpen(from) !== false;
    await redirectLog(await this.connected(), path, isStillOurs);
  }

  async pause(): Promise<void> {
    await (await this.connected()).execute('stop');
  }

  async resume(): Promise<void> {
    await (await this.connected()).execute('cont');
  }

  async isRunning(): Promise<boolean> {
    const qmp = await this.connected();
    const status = await qmp.execute<{ readonly running?: boolean }>('query-status');
    return status.running === true;
  }

  /** Whether its process is there; as long as QMP is, where we cannot see it. */
  get isAlive(): boolean {
    const { process } = this;
    if (process === undefined) return this.#qmp.state === 'ready';
    return isAlive(process.pid, process.startTime);
  }

  /** Paths of the files that QEMU has open; undefined where we may not look. */
  openFiles(): readonly string[] | undefined {
    return this.process === undefined ? undefined : openFilesOf(this.process.pid);
  }

  /** Files that QEMU has open for writing alone, as `filesWrittenBy`. */
  writtenFiles(): readonly string[] | undefined {
    return this.process === undefined ? undefined : filesWrittenBy(this.process.pid);
  }

  /** Whether QEMU has this file open; undefined where we may not look. */
  holdsOpen(path: string): boolean | undefined {
    return this.openFiles()?.includes(path);
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
