/** How the page reaches whoever records the file that it shows. */
import { realpathSync } from 'node:fs';
import { MmioError } from '../base/errors.ts';
import { listCollected, type CollectedStatus } from '../bridge/collected-dir.ts';
import { askControl } from '../recording/session/control-socket.ts';
import type { RecordingStatus } from '../recording/session/status.ts';
import { listSessions } from '../recording/session/session-folder.ts';
import type { RecorderLink, RecorderStatus } from '../server/capture-feed.ts';

interface Found {
  readonly controlSocket: string;
  readonly collected: boolean;
}

/**
 * Looks for the recording that writes the file, each time: it may end, and be resumed. A
 * collector's counts, too: it asks the recorder, wherever that is.
 */
export function linkToRecorderOf(path: string): RecorderLink {
  return {
    status: async () => {
      const found = await find(path);
      if (found === undefined) return undefined;
      const status = await askControl(found.controlSocket, { request: 'status' });
      return found.collected ? fromAfar(status as CollectedStatus) : (status as RecordingStatus);
    },
    mark: async (text) => {
      const found = await find(path);
      if (found === undefined) {
        throw new MmioError('closed', 'marks are put in while a recording runs', {
          hint: 'this one has ended, or another user records it',
        });
      }
      await askControl(found.controlSocket, { request: 'mark', text });
    },
  };
}

async function find(path: string): Promise<Found | undefined> {
  const file = realpath(path);
  const writes = (outputs: readonly string[]): boolean =>
    outputs.some((output) => realpath(output) === file);
  const here = (await listSessions()).find(({ alive, info }) => alive && writes(info.outputs));
  if (here !== undefined) return { controlSocket: here.folder.controlSocket, collected: false };
  const collected = (await listCollected()).find(({ outputs }) => writes(outputs));
  return collected && { controlSocket: collected.controlSocket, collected: true };
}

/** The spool is the recorder's; what does not take any more may be the collector's disk. */
function fromAfar({ recorder, problem }: CollectedStatus): RecorderStatus {
  if (recorder !== null) return { ...recorder, stalled: problem ?? recorder.stalled };
  return { state: 'away', stalled: problem, spoolBytes: 0, spoolLimitBytes: 0 };
}

function realpath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
