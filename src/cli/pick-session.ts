import { MmioError } from '../base/errors.ts';
import { listSessions, runDir, type ListedSession } from '../recording/session-dir.ts';

/** The running recording that is meant: the named one, or the only one. Throws MmioError. */
export async function pickSession(name: string | undefined): Promise<ListedSession> {
  const running = (await listSessions()).filter(({ alive }) => alive);
  const [only] = name === undefined ? running : running.filter(({ info }) => info.id === name);
  if (only !== undefined && (name !== undefined || running.length === 1)) return only;
  const list = running.map(({ info }) => info.id).join(', ');
  if (name === undefined && running.length > 1) {
    throw new MmioError('usage', 'which recording?', {
      evidence: `running: ${list}`,
      hint: 'name it with --session',
    });
  }
  throw new MmioError('not-found', `no recording${name === undefined ? '' : ` ${name}`} runs`, {
    evidence: list === '' ? `none in ${runDir()}` : `running: ${list}`,
    hint: 'recordings of another user are not seen: run as the user that records',
  });
}
