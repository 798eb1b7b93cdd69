import { parentPort, workerData } from 'node:worker_threads';
import { messageOf, MmioError } from '../base/errors.ts';
import { newToken } from '../server/access-control.ts';
import { servePage } from '../server/serve.ts';
import type { FromLivePage, LivePageTask } from './live-page.ts';
import { linkToRecorderOf } from './recorder-link.ts';

const { path, port } = workerData as LivePageTask;
const tell = (message: FromLivePage): void => parentPort?.postMessage(message);

try {
  const link = linkToRecorderOf(path);
  const log = (line: string): void => tell({ kind: 'log', line });
  const { url } = await servePage({ path, port, token: newToken(), link, log });
  tell({ kind: 'url', url });
} catch (error) {
  const { code, evidence, hint } =
    error instanceof MmioError ? error : new MmioError('closed', messageOf(error));
  tell({ kind: 'failed', code, message: messageOf(error), evidence, hint });
}
