import { Failure } from '../../../base/failure.ts';
import { readVcpus } from '../../../machine/vcpus.ts';
import type { SourcePosition } from '../../../model/position.ts';
import { KvmDecoder, type KvmDecoderSnapshot } from '../../../sources/kvm-tracepoints/decoder.ts';
import type { RecordingSource, SourceParts } from '../recording-source.ts';
import { BAR_POLL_MS, BarPoll } from './bar-poll.ts';
import type { KvmInfo } from './state.ts';
import { saveTrace, type SavedTrace } from './trace-session.ts';
import type { KvmTrace } from './trace.ts';
import { KvmWriter } from './writer.ts';

const NOTES = [
  "recorded from KVM's tracepoints: what QEMU or the kernel's short cuts (ioeventfd) did is not in it",
  `QMP was asked every ${BAR_POLL_MS} ms where the BARs are: what came and went in between is not known`,
];

/** What is new of a recording that is resumed. */
export interface ResumedTrace {
  readonly trace: SavedTrace;
  readonly state: KvmDecoderSnapshot;
}

/** KVM's records are written into the spool by us, and QMP is asked where the BARs are. */
export class KvmSource implements RecordingSource {
  readonly decoder: KvmDecoder;
  readonly writer: KvmWriter | undefined;
  readonly info: KvmInfo;
  readonly seen = 'all';
  readonly losesWhenFull = false;
  readonly stderrBytes = Infinity;
  readonly #poll: BarPoll;
  readonly #failure = new Failure();

  /** @param trace undefined: QEMU is gone, and so is its trace */
  constructor(parts: SourceParts, trace: KvmTrace | undefined, resumed?: ResumedTrace) {
    const { folder, spool, attribution, header, notice } = parts;
    const saved = trace ? saveTrace(trace, header, resumed?.trace) : resumed?.trace;
    if (saved === undefined) throw new Error('a recording from tracepoints without its trace');
    this.info = { trace: saved };
    this.decoder = new KvmDecoder({
      formats: saved.formats,
      baseNs: BigInt(saved.baseNs),
      originNs: saved.originNs,
      isRecorded: (address) => attribution.devices.addresses.mappingAt(address) !== undefined,
      from: resumed?.state,
    });
    this.#poll = new BarPoll(spool.position, {
      path: folder.bars,
      follow: (functions) => attribution.devices.follow(functions),
    });
    this.#learnVcpus(attribution.vcpuOfThread);
    if (trace === undefined) return;
    // The recorder before us may have been killed in the middle of a frame.
    if (resumed !== undefined) spool.advanceWriter();
    const writer = new KvmWriter(trace, spool.currentPath, {
      onProblem: notice,
      failure: this.#failure,
      takeOver: resumed && (trace.isFound ? 'same' : 'another'),
    });
    this.writer = writer;
    const { vm } = parts;
    if (vm === undefined) writer.finish();
    else {
      this.#poll.start({
        connected: () => vm.connected(),
        end: () => {
          writer.drain();
          return spool.end();
        },
        onNews: async (qmp) => {
          const added = this.#learnVcpus(await readVcpus(qmp));
          if (added.length > 0) trace.addThreads(added);
        },
      });
    }
  }

  /** What was a vCPU stays one: its last records may not have been read. */
  #learnVcpus(vcpus: ReadonlyMap<number, number>): number[] {
    const before = this.decoder.vcpuOfThread;
    this.decoder.vcpuOfThread = new Map([...before, ...vcpus]);
    return [...vcpus.keys()].filter((thread) => !before.has(thread));
  }

  get failure(): Promise<never> {
    return this.#failure.promise;
  }

  /** No access is read before it is known where the BARs were. */
  readLimit(read: SourcePosition): SourcePosition | undefined {
    return this.#poll.limit(read);
  }

  onRead(): void {}
  onReadAll(): void {}
  complete(): void {}
  async caughtUp(): Promise<void> {
    this.writer?.drain();
  }
  onEnding(): void {}
  /** Nothing of QEMU was changed. */
  async detach(): Promise<void> {}

  async finish(): Promise<void> {
    this.#poll.stop();
    this.writer?.finish();
  }

  notes(): readonly string[] {
    return NOTES;
  }

  snapshot(): KvmDecoderSnapshot {
    return this.decoder.snapshot();
  }

  stop(): void {
    this.#poll.stop();
    this.writer?.stop();
  }
}
