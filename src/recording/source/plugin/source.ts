import { appendFileSync, readFileSync } from 'node:fs';
import { Failure } from '../../../base/failure.ts';
import type { SourcePosition } from '../../../model/position.ts';
import { PluginDecoder, type PluginDecoderSnapshot } from '../../../sources/plugin/decoder.ts';
import { FrameKind, goneFrame, logPositionOf } from '../../../sources/plugin/frames.ts';
import { HEAD_BYTES, WireType, type GuestRange } from '../../../sources/plugin/wire.ts';
import { segmentPath, type Spool } from '../../spool/spool.ts';
import { ELSEWHERE } from '../../spool/spool-writer.ts';
import { userLines } from '../log/user-lines.ts';
import { othersFilesOf } from '../log/elsewhere.ts';
import { logDisturbance } from '../log/writer.ts';
import type { RecordingSource, SourceParts } from '../recording-source.ts';
import { BESIDE_PLUGIN } from '../trace-events.ts';
import { listenForPlugin, type PluginLink } from './link.ts';
import { LogTail, type LogWriter } from './log-tail.ts';
import { END_OF_TIME, Merge } from './merge.ts';
import type { PluginInfo } from './state.ts';
import { PluginWriter } from './writer.ts';

const NOTES = [
  'recorded by a QEMU plugin: what devices did to each other (DMA to a BAR), and accesses to I/O ports, are not in it',
];

/**
 * Wherever a BAR can come to. Narrower ranges would have to follow the BARs, and between a guest's
 * moving one and the plugin's hearing of it accesses would be lost; an access that turns out to be
 * of no recorded BAR costs less than a line of QEMU's log.
 */
export function rangesFor(target: string): readonly GuestRange[] {
  const last = 2n ** 64n - 1n;
  // Port numbers are below, and no BAR in memory is.
  if (target !== 'x86_64' && target !== 'i386') return [{ start: 0x1_0000n, last }];
  // Interrupt controllers, HPET and firmware lie at the end of the first 4 GiB, VGA's in the first
  // MiB; Linux and firmware access them all the time.
  return [
    { start: 0x10_0000n, last: 0xfebf_ffffn },
    { start: 0x1_0000_0000n, last },
  ];
}

/** The plugin's records and QEMU's log beside them are written into the spool by us. */
export class PluginSource implements RecordingSource {
  readonly decoder: PluginDecoder;
  /** undefined: QEMU is gone; what it has left is in the spool already. */
  readonly writer: PluginWriter | undefined;
  readonly info: PluginInfo;
  readonly seen = 'memory';
  /** QEMU's log beside the plugin's records tells where the BARs are. */
  readonly losesWhenFull = true;
  readonly stderrBytes = Infinity;
  readonly #failure: Failure;

  private constructor(
    { header, userLog }: SourceParts,
    info: PluginInfo,
    state: PluginDecoderSnapshot | undefined,
    { writer, failure }: { writer: PluginWriter | undefined; failure: Failure },
  ) {
    this.info = info;
    this.writer = writer;
    this.#failure = failure;
    this.decoder = new PluginDecoder({
      start: { sec: header.startSec, ns: header.startNs },
      ...userLines(userLog),
      from: state,
    });
  }

  /** @param was `link` of a QEMU that has just been started, or the state of a recording that is resumed */
  static async open(
    parts: SourceParts,
    info: PluginInfo,
    was: { readonly link?: PluginLink | undefined; readonly state?: PluginDecoderSnapshot },
  ): Promise<PluginSource> {
    const failure = new Failure();
    const writer = await openWriter(parts, info, was, failure);
    return new PluginSource(parts, info, was.state, { writer, failure });
  }

  get failure(): Promise<never> {
    return this.#failure.promise;
  }

  readLimit(): SourcePosition | undefined {
    return undefined;
  }

  onRead(): void {}
  onReadAll(): void {}
  complete(): void {}
  async caughtUp(): Promise<void> {
    await this.writer?.caughtUp();
  }
  onEnding(): void {}
  /** A QEMU with the plugin is ours, and is ended. */
  async detach(): Promise<void> {}

  async finish(): Promise<void> {
    await this.writer?.finish();
  }

  notes(): readonly string[] {
    return NOTES;
  }

  snapshot(): PluginDecoderSnapshot {
    return this.decoder.snapshot();
  }

  stop(): void {
    this.writer?.stop();
  }
}

async function openWriter(
  { folder, spool, vm, overflow, notice }: SourceParts,
  { target }: PluginInfo,
  { link: greeted, state }: { link?: PluginLink | undefined; state?: PluginDecoderSnapshot },
  failure: Failure,
): Promise<PluginWriter | undefined> {
  const written = state === undefined ? undefined : readWritten(spool);
  // The recorder before us may have been killed in the middle of a frame.
  if (state !== undefined) spool.advanceWriter();
  const log = new LogTail(spool.dir, written?.log ?? state?.log ?? undefined);
  if (vm === undefined) {
    const merge = new Merge();
    merge.addLines(await log.read(undefined));
    await log.close();
    const last = written?.farewell === true ? [] : [goneFrame()];
    appendFileSync(spool.currentPath, Buffer.concat([...merge.take(END_OF_TIME), ...last]));
    return undefined;
  }
  const link = greeted ?? (await listenForPlugin(folder, { overflow, target, notice }));
  const qemuLog: LogWriter = {
    logInto: (path) => vm.logInto(path),
    holdsOpen: (path) => vm.holdsOpen(path),
    othersFiles: () => othersFilesOf(vm, spool.dir),
  };
  const disturbance = logDisturbance(vm, BESIDE_PLUGIN, {
    dir: spool.dir,
    isOurs: (path) => log.isOurs(path),
    logAgain: () => log.comeBack(qemuLog),
  });
  const writer = new PluginWriter(spool.currentPath, {
    link,
    log,
    vm: qemuLog,
    disturbance: async () => (log.wasElsewhere() ? { what: ELSEWHERE } : disturbance()),
    failure,
    onProblem: notice,
  });
  link.want(rangesFor(target), !(await folder.isDropping()));
  return writer;
}

/** What a recorder that was killed had written and not yet made safe. */
function readWritten(spool: Spool): {
  readonly log: SourcePosition | undefined;
  readonly farewell: boolean;
} {
  let log: SourcePosition | undefined;
  let farewell = false;
  const newest = spool.newestSegment;
  for (let { segment, offset } = spool.position; segment <= newest; segment++, offset = 0) {
    const bytes = readFileSync(segmentPath(spool.dir, segment));
    for (let at = offset; at + HEAD_BYTES <= bytes.length;) {
      const end = at + HEAD_BYTES + bytes.readUInt32LE(at + 4);
      if (end > bytes.length) break;
      const kind = bytes.readUInt32LE(at);
      if (kind === FrameKind.log) log = logPositionOf(bytes.subarray(at, end));
      else if (kind === WireType.farewell) farewell = true;
      at = end;
    }
  }
  return { log, farewell };
}
