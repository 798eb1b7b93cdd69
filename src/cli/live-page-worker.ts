import { parentPort, workerData } from 'node:worker_threads';
import { messageOf, MmioError } from '../base/errors.ts';
import { newToken } from '../server/access-control.ts';
import { Recordings } from '../server/recordings.ts';
import { servePage } from '../server/serve.ts';
import type { FromLivePage, LivePageTask, ShownRecording } from './live-page.ts';
import { linkToRecorderOf } from './recorder-link.ts';

const { port, token = newToken() } = workerData as LivePageTask;
const tell = (message: FromLivePage): void => parentPort?.postMessage(message);

try {
  const log = (line: string): void => tell({ kind: 'log', line });
  const recordings = new Recordings(log);
  const server = await servePage({ recordings, port, token, log });
  parentPort?.on('message', (message: ShownRecording | 'end') => {
    if (message === 'end') void server.close().then(() => parentPort?.close());
    else recordings.put({ ...message, link: linkToRecorderOf(message.path) });
  });
  tell({ kind: 'url', url: server.url });
} catch (error) {
  const { code, evidence, hint } =
    error instanceof MmioError ? error : new MmioError('closed', messageOf(error));
  tell({ kind: 'failed', code, message: messageOf(error), evidence, hint });
}
