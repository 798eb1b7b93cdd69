import { MmioError } from '../base/errors.ts';
import { listCollected } from '../bridge/collected-dir.ts';
import {
  findSessions,
  idsOf,
  runDir,
  wholeId,
  type ListedSession,
} from '../recording/session/session-folder.ts';

export interface PickedSession {
  readonly id: string;
  readonly controlSocket: string;
}

/**
 * The running recording that is meant: the named one, or the only one. Those that a collector here
 * takes from elsewhere count, too. Throws MmioError.
 */
export async function pickSession(beginning: string | undefined): Promise<PickedSession> {
  const found = await findSessions();
  const here = found.sessions
    .filter(({ alive }) => alive)
    .map(({ folder }) => ({ id: folder.id, controlSocket: folder.controlSocket }));
  const collected = (await listCollected()).filter(
    // One that is made here as well is there already.
    ({ id, session }) => beginning === id || !here.some((it) => it.id === session),
  );
  const running = [...here, ...collected];
  const ids = [...idsOf(found), ...collected.map(({ id }) => id)];
  const name = beginning && wholeId(beginning, ids);
  const [only] = name === undefined ? running : running.filter(({ id }) => id === name);
  if (only !== undefined && (name !== undefined || running.length === 1)) return only;
  const list = running.map(({ id }) => id).join(', ');
  if (name === undefined && running.length > 1) {
    throw new MmioError('usage', 'which recording?', {
      evidence: `running: ${list}`,
      hint: 'name it with --session',
    });
  }
  throw new MmioError('not-found', `no recording${name === undefined ? '' : ` ${name}`} runs`, {
    evidence: list === '' ? `none in ${runDir()}` : `running: ${list}`,
    hint:
      hintFor(found.sessions) ??
      'recordings of another user are not seen: run as the user that records',
  });
}

/** Where there is one that only waits to be gone on with. */
function hintFor(listed: readonly ListedSession[]): string | undefined {
  const waiting = listed.find(({ alive }) => !alive);
  return waiting && `one was interrupted: mmiobridge resume ${waiting.info.id} goes on with it`;
}
