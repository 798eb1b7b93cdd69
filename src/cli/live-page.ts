/**
 * The page of recordings that run, in a thread of its own: it reads captures as any reader does, so
 * that nothing that a page does, or does not do, can hold up a recording.
 */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { MmioError } from '../base/errors.ts';
import type { RecordingEntry } from '../server/recordings.ts';
import { say } from './print.ts';

/** What the page may use of memory; then it ends, and the recordings go on. */
const MAX_HEAP_MB = 1024;

export interface LivePageTask {
  /** 0: any that is free. */
  readonly port: number;
  /** Undefined: a new one. */
  readonly token: string | undefined;
}

export type ShownRecording = Omit<RecordingEntry, 'link'>;

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
  /** Adds a recording, or tells of another state of one. */
  show(recording: ShownRecording): void;
  close(): Promise<void>;
}

/** The output that a page can show. Throws MmioError `usage` where there is none. */
export function capturePathOf(outputs: readonly string[]): string {
  const path = outputs.find((output) => output.toLowerCase().endsWith('.mmiocap'));
  if (path !== undefined) return path;
  throw new MmioError('usage', '--live shows the capture that is recorded, and there is none', {
    evidence: `outputs: ${outputs.join(', ')}`,
    hint: 'add -o FILE.mmiocap',
  });
}

const END_MS = 1000;

/** Pages are told that it ends, if that can be done in time. */
async function end(worker: Worker): Promise<void> {
  // The process is kept until it has gone.
  worker.ref();
  const exited = once(worker, 'exit');
  worker.postMessage('end');
  await Promise.race([exited, sleep(END_MS, undefined, { ref: false })]);
  await worker.terminate();
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
        worker.unref();
        reject(new MmioError(message.code, message.message, message));
      } else {
        // From now on it does not keep the process.
        worker.unref();
        resolve({
          url: message.url,
          show: (recording) => worker.postMessage(recording),
          close: () => end(worker),
        });
      }
    });
    worker.on('error', (error) => {
      say(`the page has ended: ${error.message}; what is recorded goes on`);
      reject(error);
    });
    worker.on('exit', () => reject(new MmioError('closed', 'the page has ended')));
  });
}
