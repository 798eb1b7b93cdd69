/** The header of a recording of a QEMU. */
import { TOOL } from '../../base/version.ts';
import type { RecordSource } from '../session/session-folder.ts';
import type { QmpClient } from '../../qmp/client.ts';

export function wallClock(): { readonly startSec: number; readonly startNs: number } {
  const nowMs = Date.now();
  const startSec = Math.floor(nowMs / 1000);
  return { startSec, startNs: (nowMs - startSec * 1000) * 1_000_000 };
}

export function headerBase(
  start: { readonly startSec: number; readonly startNs: number },
  qmp: QmpClient,
  source: RecordSource,
) {
  return {
    ...start,
    tool: TOOL,
    source: source === 'log' ? ('qemu-log' as const) : source,
    clock: source === 'kvm' ? ('kernel' as const) : ('qemu' as const),
    textBaseSec: 0,
    qemuVersion: qmp.version,
  };
}
