/** The parts of a recording that use KVM's tracepoints, new or gone on with. */
import type { Vm } from '../../../machine/vm.ts';
import { KvmDecoder } from '../../../sources/kvm-tracepoints/decoder.ts';
import { BarPoll } from './bar-poll.ts';
import { sessionTimeAt } from './clock.ts';
import { KvmTrace } from './trace.ts';
import { KvmWriter } from './writer.ts';
import type { Notice } from '../../../base/notice.ts';
import { readVcpus } from '../../../machine/vcpus.ts';
import type { Checkpoint, SessionFolder, SessionInfo } from '../../session/session-folder.ts';
import type { Attribution } from '../../../attribution/attribution.ts';
import type { Spool } from '../../spool/spool.ts';

/** Where the accesses come from KVM's tracepoints, and the spool is written by us. */
export interface KvmSource {
  /** undefined: QEMU is gone, and so is the trace. */
  readonly writer: KvmWriter | undefined;
  readonly poll: BarPoll;
}

/** KVM's tracepoints, if the recording needs them: those of a recorder before us, or new ones. */
export async function openKvmTrace(
  vm: Vm | undefined,
  info: SessionInfo,
): Promise<KvmTrace | undefined> {
  if (!info.pc && info.source !== 'kvm') return undefined;
  const before = info.kvm === undefined ? undefined : KvmTrace.find(info.kvm);
  if (before !== undefined && (vm !== undefined || info.source === 'kvm')) return before;
  before?.close();
  if (vm === undefined) return undefined;
  const threads = [...(await readVcpus(vm.qmp)).keys()];
  return KvmTrace.begin(vm.qmp, threads, info.kvm?.baseNs);
}

/** What of a trace is kept with the session: enough to read what it left in the spool. */
export function traceInfo(trace: KvmTrace | undefined, info: SessionInfo): SessionInfo['kvm'] {
  if (trace === undefined) return info.kvm;
  const originNs = info.kvm?.originNs ?? sessionTimeAt(trace.baseNs, info.header);
  return { ...trace.info, originNs };
}

export function kvmDecoder(
  info: SessionInfo,
  checkpoint: Checkpoint | undefined,
  isRecorded: (address: number) => boolean,
): KvmDecoder {
  const { kvm } = info;
  if (kvm === undefined) throw new Error('a recording from tracepoints without its trace');
  const { formats, baseNs, originNs } = kvm;
  const from = checkpoint?.kvm;
  return new KvmDecoder({ formats, baseNs: BigInt(baseNs), originNs, isRecorded, from });
}

/** Has KVM's records written into the spool, and QMP asked for the BARs. */
export function kvmSource(parts: {
  readonly dir: SessionFolder;
  readonly spool: Spool;
  readonly vm: Vm | undefined;
  readonly trace: KvmTrace | undefined;
  readonly attribution: Attribution;
  readonly decoder: KvmDecoder;
  readonly checkpoint: Checkpoint | undefined;
  readonly notice: Notice;
}): KvmSource {
  const { dir, spool, vm, trace, attribution, decoder, checkpoint } = parts;
  const poll = new BarPoll(checkpoint?.position ?? spool.position, {
    path: dir.bars,
    follow: (functions) => attribution.devices.follow(functions),
  });
  // What was a vCPU stays one: its last records may not have been read.
  const learnVcpus = (vcpus: ReadonlyMap<number, number>): number[] => {
    const before = decoder.vcpuOfThread;
    decoder.vcpuOfThread = new Map([...before, ...vcpus]);
    return [...vcpus.keys()].filter((thread) => !before.has(thread));
  };
  learnVcpus(attribution.vcpuOfThread);
  if (trace === undefined) return { writer: undefined, poll };

  const isSame = trace.isFound ? 'same' : 'another';
  // The recorder before us may have been killed in the middle of a frame.
  if (checkpoint !== undefined) spool.advanceWriter();
  const writer = new KvmWriter(trace, spool.currentPath, {
    onProblem: parts.notice,
    takeOver: checkpoint && isSame,
  });
  if (vm === undefined) writer.finish();
  else {
    poll.start({
      connected: () => vm.connected(),
      end: () => {
        writer.drain();
        return spool.end();
      },
      onNews: async (qmp) => {
        const added = learnVcpus(await readVcpus(qmp));
        if (added.length > 0) trace.addThreads(added);
      },
    });
  }
  return { writer, poll };
}
