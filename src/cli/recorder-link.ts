/** How the page reaches whoever records the file that it shows. */
import { realpathSync } from 'node:fs';
import { MmioError } from '../base/errors.ts';
import { askControl } from '../recording/control.ts';
import type { LiveStatus } from '../recording/live.ts';
import { listSessions } from '../recording/session-dir.ts';
import type { RecorderLink } from '../server/feed.ts';

/** Looks for the recording that writes the file, each time: it may end, and be gone on with. */
export function linkToRecorderOf(path: string): RecorderLink {
  const find = async () => {
    const file = realpath(path);
    const running = (await listSessions()).filter(({ alive }) => alive);
    return running.find(({ info }) => info.outputs.some((output) => realpath(output) === file));
  };
  return {
    status: async () => {
      const session = await find();
      if (session === undefined) return undefined;
      return (await askControl(session.dir.controlSocket, { request: 'status' })) as LiveStatus;
    },
    mark: async (text) => {
      const session = await find();
      if (session === undefined) {
        throw new MmioError('closed', 'marks are put in while a recording runs', {
          hint: 'this one has ended, or another user records it',
        });
      }
      await askControl(session.dir.controlSocket, { request: 'mark', text });
    },
  };
}

function realpath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
