import { Failure } from '../../../base/failure.ts';
import type { DeviceState } from '../../../attribution/device-state.ts';
import type { Vm } from '../../../machine/vm.ts';
import type { SourcePosition } from '../../../model/position.ts';
import type { Tables } from '../../../model/tables.ts';
import type { RawBatch } from '../../../sources/raw-batch.ts';
import { lineCountsOf } from '../../../sources/spool-decoder.ts';
import { FAST_EVENTS, QemuLogDecoder } from '../../../sources/qemu-log/decoder.ts';
import type { SpoolWriter } from '../../spool/spool-writer.ts';
import { PcTap } from '../kvm/pc-tap.ts';
import type { KvmTrace } from '../kvm/trace.ts';
import type { RecordingSource, SourceParts } from '../recording-source.ts';
import { seenOfQemu } from '../trace-events.ts';
import { detachFromLog } from './detach.ts';
import type { LogInfo, LogState } from './state.ts';
import { StderrTail } from './stderr-tail.ts';
import { userLines } from './user-lines.ts';
import { logWriter } from './writer.ts';

interface LogOptions {
  readonly info: LogInfo;
  /** Where program counters are wanted. */
  readonly trace: KvmTrace | undefined;
  /** The guest has not run before. */
  readonly aligned: boolean;
  /** Of a recording that is resumed. */
  readonly state?: LogState | undefined;
}

/** QEMU writes the spool by itself; where program counters are wanted, KVM's records come beside it. */
export class LogSource implements RecordingSource {
  readonly decoder: QemuLogDecoder;
  readonly writer: SpoolWriter | undefined;
  readonly info: LogInfo;
  readonly losesWhenFull = true;
  readonly #parts: SourceParts;
  readonly #pc: PcTap | undefined;
  /** Of a QEMU that we started: another's is not ours to read. */
  readonly #stderr: StderrTail | undefined;
  /** QEMU writes no more. */
  #isOver = false;
  readonly #failure = new Failure();

  private constructor(parts: SourceParts, { info, trace, aligned, state }: LogOptions) {
    this.#parts = parts;
    this.info = info;
    const { header, attribution, vm, launched, folder } = parts;
    const start = { sec: header.startSec, ns: header.startNs };
    this.decoder = new QemuLogDecoder({
      start,
      counts: state?.lines,
      ...userLines(parts.userLog),
    });
    if (launched) this.#stderr = new StderrTail(folder.qemuStderr, header, state?.stderrBytes ?? 0);
    this.writer = vm && logWriter(vm, parts.spool, info.traceEvents);
    this.#pc =
      trace &&
      new PcTap({
        trace,
        vcpuOfThread: attribution.vcpuOfThread,
        aligned,
        start: header,
        isRecorded: (address) => attribution.devices.addresses.mappingAt(address) !== undefined,
        counts: state?.pc ?? undefined,
        failure: this.#failure,
      });
  }

  static open(parts: SourceParts, options: LogOptions): LogSource {
    const { userLog, notice } = parts;
    const slow = FAST_EVENTS.filter((event) => userLog?.wantsAlso(event) === true);
    if (slow.length > 0) {
      notice(
        `-trace on QEMU's command line asks for ${slow.join(', ')}, too: each line of it goes to your log as well, and is read several times slower`,
      );
    }
    return new LogSource(parts, options);
  }

  get seen() {
    return seenOfQemu(this.info.traceEvents);
  }

  get failure(): Promise<never> {
    return this.#failure.promise;
  }

  readLimit(): SourcePosition | undefined {
    return undefined;
  }

  onRead(): void {
    this.#pc?.logRead();
    // After the log: what QEMU said before any line of it is there by now.
    this.#readStderr();
  }

  onReadAll(): void {
    this.#pc?.logAtEnd();
    const before = this.decoder.interjections.length;
    this.#readStderr();
    this.decoder.interjectionsDue(this.#isOver ? this.decoder.interjections.length : before);
  }

  #readStderr(): void {
    const lines = this.#stderr?.read() ?? [];
    if (lines.length > 0) this.decoder.interject(lines);
  }

  get stderrBytes(): number {
    return this.decoder.interjections[0]?.at ?? this.#stderr?.at ?? 0;
  }

  complete(batch: RawBatch, tables: Tables): void {
    this.#pc?.fill(batch, tables);
  }

  async caughtUp(): Promise<void> {}

  onEnding(): void {
    this.#pc?.logEnds();
  }

  async detach(vm: Vm): Promise<void> {
    const { restore } = this.info;
    if (restore !== null) await detachFromLog(vm, restore, this.#parts.spool.dir, this.#parts);
  }

  async finish(): Promise<void> {
    this.#isOver = true;
  }

  notes(phase: 'head' | 'end', devices: readonly DeviceState[]): string[] {
    const { stampedLines, unstampedLines } = this.decoder;
    const emulated = devices.filter(({ device }) => device.hostAddress === '');
    const isDeaf = this.#stderr === undefined && emulated.length < devices.length;
    return [
      ...(isDeaf
        ? [
            "QEMU's standard error is not ours to read: of a passed-through device reads that failed are not in it, and writes that failed look like others",
          ]
        : []),
      ...(unstampedLines > 0 && stampedLines === 0
        ? ['QEMU runs without -msg timestamp=on: times are those of the poll, about 10 ms apart']
        : []),
      ...emulated.map(
        ({ device }) =>
          `${device.name} is emulated: accesses are those that QEMU's model was asked, which may split or widen the guest's`,
      ),
      ...(phase === 'end' ? (this.#pc?.notes ?? []) : []),
    ];
  }

  snapshot(): LogState {
    const lines = lineCountsOf(this.decoder);
    return { lines, stderrBytes: this.stderrBytes, pc: this.#pc?.counts ?? null };
  }

  stop(): void {
    this.#pc?.close();
    this.#stderr?.close();
  }
}
