/** The recorder's trace instance: made, found again, read and taken down. */
import { cpus } from 'node:os';
import { MmioError } from '../../../base/errors.ts';
import { TraceInstance, readFormats } from '../../../host/tracefs/instance.ts';
import { Rings } from '../../../host/tracefs/rings.ts';
import { findTraceDir } from '../../../host/tracefs/trace-dir.ts';
import { isAlive, ourselves, type ProcessRef } from '../../../machine/proc.ts';
import type { QmpClient } from '../../../qmp/client.ts';
import {
  KVM_EVENTS,
  parseFormats,
  type KvmFormats,
  type KvmTraceInfo,
} from '../../../sources/kvm-tracepoints/formats.ts';
import { PORT_EXITS, usedBytes } from '../../../sources/kvm-tracepoints/pages.ts';

const PREFIX = 'mmiobridge-';
/** Of all CPUs together, and the least and the most of one. */
const BUFFER_KB = 256 * 1024;
const MIN_CPU_KB = 1024;
const MAX_CPU_KB = 16 * 1024;

/** Interrupt controllers and the HPET: no BAR lies there, and they are accessed all the time. */
const NO_CHIPSET = 'gpa < 0xfec00000 || gpa > 0xffffffff';

/** What is traced, below `events/kvm`, and what of it. */
const EVENTS = {
  kvm_emulate_insn: undefined,
  kvm_mmio: NO_CHIPSET,
  kvm_pio: undefined,
  kvm_exit: PORT_EXITS,
} as const;

export class KvmTrace {
  readonly info: KvmTraceInfo;
  /** It was there already. */
  readonly isFound: boolean;
  readonly #instance: TraceInstance;
  readonly #rings: Rings;
  #closed = false;
  readonly #onExit = () => this.close();

  private constructor(instance: TraceInstance, info: KvmTraceInfo, isFound: boolean) {
    this.#instance = instance;
    this.info = info;
    this.isFound = isFound;
    this.#rings = new Rings(instance, info.formats.pageBytes);
    process.once('exit', this.#onExit);
  }

  /**
   * Begins to trace the vCPUs of a VM. Removes what recorders that are gone have left.
   *
   * @throws MmioError `refused` where the guest does not run on KVM, or the kernel does not let us
   */
  static async begin(
    qmp: QmpClient,
    threads: readonly number[],
    baseNs = String(process.hrtime.bigint()),
  ): Promise<KvmTrace> {
    const kvm = await qmp.execute<{ readonly enabled?: boolean }>('query-kvm');
    if (kvm.enabled !== true) {
      throw new MmioError('refused', 'the guest does not run on KVM: it has no tracepoints', {
        evidence: `query-kvm: ${JSON.stringify(kvm)}`,
        hint: 'give QEMU -accel kvm, or record without --pc and --source kvm',
      });
    }
    const dir = findTraceDir();
    removeStale(dir);
    const formats = parseFormats(readFormats(dir, KVM_EVENTS));
    const { pid, startTime } = ourselves();
    const instance = TraceInstance.create(dir, `${PREFIX}${pid}-${startTime}`, {
      threads,
      events: EVENTS,
      bufferKb: bufferKb(),
    });
    return new KvmTrace(instance, { instance: instance.name, baseNs, formats }, false);
  }

  /** Goes on with the instance of a recorder that was killed; undefined if it is gone. */
  static find(info: KvmTraceInfo): KvmTrace | undefined {
    const dir = findTraceDir();
    const instance = TraceInstance.find(dir, info.instance);
    if (instance === undefined) return undefined;
    return new KvmTrace(instance, info, true);
  }

  get formats(): KvmFormats {
    return this.info.formats;
  }

  get baseNs(): bigint {
    return BigInt(this.info.baseNs);
  }

  /** Events that were ever read out of it, by whomever. */
  get eventsRead(): number {
    return this.#instance.eventsRead;
  }

  addThreads(threads: readonly number[]): void {
    this.#instance.addThreads(threads);
  }

  trace(on: boolean): void {
    this.#instance.trace(on);
  }

  /** What of it somebody has switched off, by the names of the kernel's files. */
  get switchedOff(): readonly string[] {
    return this.#closed ? [] : this.#instance.switchedOff(Object.keys(EVENTS));
  }

  switchOn(): void {
    this.#instance.switchOn(Object.keys(EVENTS));
  }

  /**
   * Reads all that is there. Returns when it began to, in nanoseconds since the base: whatever
   * happened until then has been taken now.
   */
  drain(take: (cpu: number, page: Uint8Array) => void): number {
    const beganNs = Number(process.hrtime.bigint() - this.baseNs);
    if (!this.#closed) this.#rings.drain(take);
    return beganNs;
  }

  /** A page without what is behind its records. */
  trimmed(page: Uint8Array): Uint8Array {
    return page.subarray(0, usedBytes(page, this.formats));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    process.off('exit', this.#onExit);
    this.#rings.close();
    this.#instance.remove();
  }
}

function bufferKb(): number {
  const share = Math.floor(BUFFER_KB / Math.max(1, cpus().length));
  return Math.min(MAX_CPU_KB, Math.max(MIN_CPU_KB, share));
}

/** Instances whose recorder is gone; one that somebody has taken over is held by who reads it. */
function removeStale(dir: string): void {
  for (const name of TraceInstance.names(dir, PREFIX)) {
    const recorder = recorderOf(name);
    if (recorder === undefined || isAlive(recorder.pid, recorder.startTime)) continue;
    TraceInstance.find(dir, name)?.remove();
  }
}

function recorderOf(name: string): ProcessRef | undefined {
  const [, pid, startTime] = /^mmiobridge-(\d+)-(\d+)$/.exec(name) ?? [];
  return pid === undefined ? undefined : { pid: Number(pid), startTime: Number(startTime) };
}
