/** The parts of a recording that use the QEMU plugin, new or gone on with. */
import { appendFileSync, readFileSync } from 'node:fs';
import { MmioError } from '../../../base/errors.ts';
import { onlyTcg, type Plugin } from '../../../machine/plugin.ts';
import type { Vm } from '../../../machine/vm.ts';
import type { SourcePosition } from '../../../model/position.ts';
import type { QmpClient } from '../../../qmp/client.ts';
import { FrameKind, goneFrame, logPlaceOf, type LogPlace } from '../../../sources/plugin/frames.ts';
import { HEAD_BYTES, WireType, type GuestRange } from '../../../sources/plugin/wire.ts';
import type { Notice } from '../../../base/notice.ts';
import type { Checkpoint, SessionFolder, SessionInfo } from '../../session/session-folder.ts';
import { segmentPath, type Spool } from '../../spool/spool.ts';
import { PluginLink } from './link.ts';
import { LogTail } from './log-tail.ts';
import { END_OF_TIME, Merge } from './merge.ts';
import { PluginWriter } from './writer.ts';

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

export function listenForPlugin(
  dir: SessionFolder,
  info: Pick<SessionInfo, 'overflow'> & { readonly target: string; readonly notice: Notice },
): Promise<PluginLink> {
  return PluginLink.listen(dir.pluginSocket, {
    overflow: info.overflow === 'drop' ? 'count' : 'wait',
    target: info.target,
    onProblem: info.notice,
  });
}

/** Throws MmioError `refused` if the QEMU that has just been started has no plugin at work. */
export async function requirePlugin(
  qmp: QmpClient,
  link: PluginLink,
  plugin: Plugin,
): Promise<void> {
  const kvm = await qmp.execute<{ readonly enabled?: boolean }>('query-kvm').catch(() => undefined);
  if (kvm?.enabled === true) throw onlyTcg(`query-kvm: ${JSON.stringify(kvm)}`);
  if (link.hello !== undefined) return;
  throw new MmioError('refused', 'QEMU runs, and its plugin has not come forward', {
    evidence: `-plugin ${plugin.path}`,
    hint: 'run QEMU with that option by hand to see why',
  });
}

/**
 * Has the plugin's records written into the spool. undefined where QEMU is gone: then what it has
 * left is there already.
 */
export async function pluginWriter(parts: {
  readonly dir: SessionFolder;
  readonly spool: Spool;
  readonly vm: Vm | undefined;
  readonly info: SessionInfo;
  /** undefined: the recording is gone on with. */
  readonly link?: PluginLink | undefined;
  readonly checkpoint: Checkpoint | undefined;
  readonly notice: Notice;
}): Promise<PluginWriter | undefined> {
  const { dir, spool, vm, info, checkpoint, notice } = parts;
  const { plugin } = info;
  if (plugin === undefined) throw new Error('a recording from the plugin without its target');
  const written = checkpoint === undefined ? undefined : readWritten(spool, checkpoint);
  // The recorder before us may have been killed in the middle of a frame.
  if (checkpoint !== undefined) spool.advanceWriter();
  const log = new LogTail(spool.dir, written?.log ?? checkpoint?.plugin?.log);
  if (vm === undefined) {
    const merge = new Merge();
    merge.addLines(log.read(undefined));
    log.close();
    const last = written?.farewell === true ? [] : [goneFrame()];
    appendFileSync(spool.currentPath, Buffer.concat([...merge.take(END_OF_TIME), ...last]));
    return undefined;
  }
  const { overflow } = info;
  const { target } = plugin;
  const link = parts.link ?? (await listenForPlugin(dir, { overflow, target, notice }));
  const writer = new PluginWriter(spool.currentPath, { link, log, vm, onProblem: notice });
  link.want(rangesFor(target), !(await dir.isDropping()));
  return writer;
}

/** What a recorder that was killed had written and not yet made safe. */
function readWritten(
  spool: Spool,
  { position }: { readonly position: SourcePosition },
): { readonly log: LogPlace | undefined; readonly farewell: boolean } {
  let log: LogPlace | undefined;
  let farewell = false;
  const newest = spool.newestSegment;
  for (let { segment, offset } = position; segment <= newest; segment++, offset = 0) {
    const bytes = readFileSync(segmentPath(spool.dir, segment));
    for (let at = offset; at + HEAD_BYTES <= bytes.length;) {
      const end = at + HEAD_BYTES + bytes.readUInt32LE(at + 4);
      if (end > bytes.length) break;
      const kind = bytes.readUInt32LE(at);
      if (kind === FrameKind.log) log = logPlaceOf(bytes.subarray(at, end));
      else if (kind === WireType.farewell) farewell = true;
      at = end;
    }
  }
  return { log, farewell };
}
