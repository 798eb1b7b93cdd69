/**
 * The page of a recording that runs, in a thread of its own: it reads the capture as any reader
 * does, so that nothing that a page does, or does not do, can hold up the recording.
 */
import { Worker } from 'node:worker_threads';
import { MmioError } from '../base/errors.ts';
import { say } from './print.ts';

/** What the page may use of memory; then it ends, and the recording goes on. */
const MAX_HEAP_MB = 1024;

export interface LivePageTask {
  readonly path: string;
  readonly port: number;
}

export type FromLivePage =
  | { readonly kind: 'url'; readonly url: string }
  | { readonly kind: 'log'; readonly line: string }
  | {
      readonly kind: 'failed';
      readonly code: MmioError['code'];
      readonly message: string;
      readonly evidence: string | undefined;
      readonly hint: string | undefined;
    };

export interface LivePage {
  readonly url: string;
  close(): Promise<void>;
}

/** The output that a page can show. Throws MmioError `usage` where there is none. */
export function capturePathOf(outputs: readonly string[]): string {
  const path = outputs.find((output) => output.endsWith('.mmiocap'));
  if (path !== undefined) return path;
  throw new MmioError('usage', '--live shows the capture that is recorded, and there is none', {
    evidence: `outputs: ${outputs.join(', ')}`,
    hint: 'add -o FILE.mmiocap',
  });
}

/** Throws MmioError where the page cannot be served. */
export function startLivePage(task: LivePageTask): Promise<LivePage> {
  const worker = new Worker(new URL('./live-page-worker.js', import.meta.url), {
    workerData: task,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  return new Promise((resolve, reject) => {
    worker.on('message', (message: FromLivePage) => {
      if (message.kind === 'log') say(`page: ${message.line}`);
      else if (message.kind === 'failed') {
        reject(new MmioError(message.code, message.message, message));
      } else {
        resolve({ url: message.url, close: async () => void (await worker.terminate()) });
      }
    });
    worker.on('error', (error) => {
      say(`the page has ended: ${error.message}; the recording goes on`);
      reject(error);
    });
    worker.on('exit', () => reject(new MmioError('closed', 'the page has ended')));
    // It does not keep the process.
    worker.unref();
  });
}
