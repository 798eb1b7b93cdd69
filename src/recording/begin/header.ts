/** The header of a recording of a QEMU. */
import { TOOL } from '../../base/version.ts';
import { wallClockMs } from '../../base/wall-clock.ts';
import type { RecordingHeader } from '../../model/events.ts';
import type { SourceKind, Start } from '../source/recording-source.ts';

/** Session time 0 is now. */
export function startNow(): Start {
  const nowMs = Math.floor(wallClockMs());
  const startSec = Math.floor(nowMs / 1000);
  return { startSec, startNs: (nowMs - startSec * 1000) * 1_000_000 };
}

export function headerOf(
  start: Start,
  qemuVersion: string,
  source: Pick<SourceKind, 'header' | 'clock'>,
  argv: readonly string[],
): RecordingHeader {
  const { header, clock } = source;
  return {
    ...start,
    tool: TOOL,
    source: header,
    clock,
    textBaseSec: 0,
    qemuVersion,
    argv,
  };
}
