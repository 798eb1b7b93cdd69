/**
 * `--source kvm`: takes KVM's records out of the kernel and writes them into the spool, as QEMU
 * writes its log there. What the recorder makes of it then depends on the spool alone, and one that
 * is killed can be resumed.
 */
import type { Failure } from '../../../base/failure.ts';
import { SegmentFile } from '../../spool/segment-file.ts';
import type { Disturbance, SpoolWriter } from '../../spool/spool-writer.ts';
import { FrameKind, frame, numberFrame } from '../../../sources/kvm-tracepoints/frames.ts';
import type { KvmTrace } from './trace.ts';

const DRAIN_MS = 10;

export class KvmWriter implements SpoolWriter {
  readonly #trace: KvmTrace;
  readonly #timer: NodeJS.Timeout;
  readonly #segment: SegmentFile;
  /** A round that the spool had no room for. */
  #unwritten: Buffer | undefined;
  /** The last round had records, some of which may wait for the end of another. */
  #hadPages = false;
  #finished = false;

  /**
   * @param path the segment that is written first
   * @param takeOver a recorder before us was killed: `same` trace, or another
   */
  constructor(
    trace: KvmTrace,
    path: string,
    options: {
      readonly onProblem: (message: string) => void;
      readonly failure: Failure;
      readonly takeOver?: 'same' | 'another' | undefined;
    },
  ) {
    this.#trace = trace;
    this.#segment = new SegmentFile(path, options.onProblem);
    if (options.takeOver !== undefined) {
      const read = options.takeOver === 'same' ? trace.eventsRead : -1;
      this.#unwritten = numberFrame(FrameKind.takenOver, read);
    }
    const { failure } = options;
    this.#timer = setInterval(() => failure.guard(() => this.drain()), DRAIN_MS);
  }

  /** Writes down what has happened until now. */
  drain(): void {
    if (this.#finished || (this.#unwritten !== undefined && !this.#segment.append(this.#unwritten)))
      return;
    this.#unwritten = undefined;
    const frames: Buffer[] = [];
    const beganNs = this.#trace.drain((cpu, page) => {
      frames.push(frame(FrameKind.page, cpu, this.#trace.trimmed(page)));
    });
    const hasPages = frames.length > 0;
    if (!hasPages && !this.#hadPages) return;
    this.#hadPages = hasPages;
    frames.push(numberFrame(FrameKind.roundEnd, beganNs));
    const bytes = Buffer.concat(frames);
    // What does not fit is kept, and nothing more is read: what overruns then, the kernel counts.
    if (!this.#segment.append(bytes)) this.#unwritten = bytes;
  }

  /** As `Vm` does for QEMU's log. */
  logInto(path: string): Promise<void> {
    this.drain();
    this.#segment.moveTo(path);
    return Promise.resolve();
  }

  trace(on: boolean): Promise<void> {
    this.drain();
    this.#trace.trace(on);
    return Promise.resolve();
  }

  /** Segments are left at once. */
  holdsOpen(): boolean {
    return false;
  }

  disturbance(): Promise<Disturbance | undefined> {
    const off = this.#trace.switchedOff;
    if (off.length === 0) return Promise.resolve(undefined);
    return Promise.resolve({
      what: `tracing was switched off (${off.join(', ')})`,
      putBack: () => Promise.resolve(this.#trace.switchOn()),
    });
  }

  /** Ends the trace; all of it is then in the spool. */
  finish(): void {
    if (this.#finished) return;
    this.#trace.trace(false);
    this.drain();
    // The end of another round, which lets go of what waits.
    this.#hadPages = true;
    this.drain();
    this.stop();
  }

  /** Reads no more. */
  stop(): void {
    if (this.#finished) return;
    this.#finished = true;
    clearInterval(this.#timer);
    this.#segment.close();
    this.#trace.close();
  }
}
