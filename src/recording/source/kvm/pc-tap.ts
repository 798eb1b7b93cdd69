/**
 * `--pc`: while a recording runs, takes KVM's records out of the kernel, and gives the accesses of
 * QEMU's log their program counters on their way to the outputs.
 */
import { NO_CPU, NO_MAPPING, Op, Space } from '../../../model/access-batch.ts';
import type { Failure } from '../../../base/failure.ts';
import type { Tables } from '../../../model/tables.ts';
import {
  PcJoin,
  type JoinCounts,
  type LoggedAccess,
} from '../../../sources/kvm-tracepoints/join.ts';
import { PageReader } from '../../../sources/kvm-tracepoints/pages.ts';
import { Rounds } from '../../../sources/kvm-tracepoints/rounds.ts';
import type { RawBatch } from '../../../sources/raw-batch.ts';
import { sessionTimeAt } from './clock.ts';
import type { KvmTrace } from './trace.ts';

const DRAIN_MS = 10;
/** The two clocks are compared again so often: the wall clock can be set. */
const CLOCK_MS = 10_000;
/** Pages that wait for the log. The kernel's own buffer holds what comes after them, then drops. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;

interface Round {
  readonly beganNs: number;
  readonly pages: readonly { readonly cpu: number; readonly bytes: Uint8Array }[];
}

export interface PcOptions {
  readonly trace: KvmTrace;
  readonly vcpuOfThread: ReadonlyMap<number, number>;
  /** The guest has not run before. */
  readonly aligned: boolean;
  readonly start: { readonly startSec: number; readonly startNs: number };
  readonly isRecorded: (address: number) => boolean;
  /** What was counted before, where a recording is resumed. */
  readonly counts?: JoinCounts | undefined;
  readonly failure: Failure;
}

export class PcTap {
  readonly #trace: KvmTrace;
  readonly #start: PcOptions['start'];
  readonly #rounds: Rounds;
  readonly #join: PcJoin;
  readonly #before: JoinCounts;
  #waiting: Round[] = [];
  #waitingBytes = 0;
  /** There was no room for what the log's lines need. */
  #drainDue = false;
  #timer: NodeJS.Timeout | undefined;
  #clockMs = 0;
  #unloggedAtEnd: number | undefined;

  readonly #line: { -readonly [K in keyof LoggedAccess]: LoggedAccess[K] } = {
    timeNs: 0,
    cpu: 0,
    write: false,
    width: 0,
    address: 0,
    lo: 0,
    hi: 0,
  };

  constructor(options: PcOptions) {
    const { trace, vcpuOfThread, aligned, isRecorded, start, failure } = options;
    this.#trace = trace;
    this.#start = start;
    this.#before = options.counts ?? { joined: 0, alone: 0, unlogged: 0, losses: 0 };
    this.#rounds = new Rounds(new PageReader(trace.formats, trace.baseNs));
    this.#join = new PcJoin({ vcpuOfThread, aligned, isRecorded, more: () => this.#more() });
    this.#compareClocks();
    // Also while an output makes the recorder wait: the kernel's buffer is small.
    this.#timer = setInterval(() => failure.guard(() => this.#drain()), DRAIN_MS);
  }

  #compareClocks(): void {
    this.#clockMs = performance.now();
    this.#join.clockOffsetNs = sessionTimeAt(this.#trace.baseNs, this.#start);
  }

  #drain(): void {
    this.#drainDue = this.#waitingBytes > MAX_WAITING_BYTES;
    if (this.#drainDue) return;
    const pages: Round['pages'][number][] = [];
    const beganNs = this.#trace.drain((cpu, page) => {
      // A Buffer's own slice() would not copy.
      const bytes = new Uint8Array(page);
      pages.push({ cpu, bytes });
      this.#waitingBytes += bytes.length;
    });
    this.#waiting.push({ beganNs, pages });
  }

  /** Hands the next round over to the join. */
  #more(): boolean {
    if (this.#waiting.length === 0 && this.#drainDue) this.#drain();
    const round = this.#waiting.shift();
    if (round === undefined) return false;
    for (const { cpu, bytes } of round.pages) {
      this.#waitingBytes -= bytes.length;
      this.#rounds.page(cpu, bytes);
    }
    this.#rounds.end(round.beganNs);
    this.#join.take(this.#rounds.events, round.beganNs);
    return true;
  }

  /** Lines of the log have been read: by now KVM's records of all of them are there. */
  logRead(): void {
    if (performance.now() - this.#clockMs > CLOCK_MS) this.#compareClocks();
    this.#drain();
  }

  /** The log was at its end when it was read last. */
  logAtEnd(): void {
    this.#join.caughtUp();
    while (this.#more());
  }

  /** QEMU is told to log elsewhere: of what KVM sees from now on no line is missing. */
  logEnds(): void {
    this.#unloggedAtEnd ??= this.#join.counts.unlogged;
  }

  /** Fills in the PCs of a batch, and the vCPUs that the log did not tell. */
  fill(batch: RawBatch, tables: Tables): void {
    const line = this.#line;
    let mapId = NO_MAPPING;
    let base = 0;
    for (let row = 0; row < batch.length; row++) {
      batch.pcLo[row] = batch.pcHi[row] = 0;
      const of = batch.mapId[row]!;
      if (of !== mapId) {
        mapId = of;
        base = tables.mappings.get(of)?.gpa ?? 0;
      }
      // Configuration space; and a thread of QEMU's that is no vCPU.
      const elsewhere = batch.cpu[row] === NO_CPU && batch.thread[row] !== 0;
      if (of === NO_MAPPING || elsewhere) {
        if (batch.space[row] !== Space.config) this.#join.pass();
        continue;
      }
      line.timeNs = batch.timeNs[row]!;
      line.cpu = batch.cpu[row]!;
      line.write = batch.op[row] === Op.write;
      line.width = batch.width[row]!;
      line.address = base + batch.offset[row]!;
      line.lo = batch.valueLo[row]!;
      line.hi = batch.valueHi[row]!;
      if (!this.#join.join(line)) continue;
      batch.pcLo[row] = this.#join.pcLo;
      batch.pcHi[row] = this.#join.pcHi;
      batch.cpu[row] = this.#join.cpu;
    }
  }

  get counts(): JoinCounts {
    const { joined, alone, losses } = this.#join.counts;
    const unlogged = this.#unloggedAtEnd ?? this.#join.counts.unlogged;
    const before = this.#before;
    return {
      joined: before.joined + joined,
      alone: before.alone + alone,
      unlogged: before.unlogged + unlogged,
      losses: before.losses + losses,
    };
  }

  /** For the coverage statement. */
  get notes(): string[] {
    const { joined, alone, unlogged, losses } = this.counts;
    const notes = [
      `program counters: of ${joined} accesses; ${alone} are without, their PC is 0x0`,
    ];
    if (unlogged > 0) {
      notes.push(
        `program counters: KVM saw ${unlogged} accesses to these BARs that QEMU did not log`,
      );
    }
    if (losses > 0) {
      notes.push(`program counters: the kernel's ring buffer overran ${losses} times`);
    }
    return notes;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#trace.close();
  }
}
