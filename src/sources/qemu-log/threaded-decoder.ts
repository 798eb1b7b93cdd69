/**
 * A decoder in a thread of its own, for logs of many megabytes: it reads and decodes while this
 * thread attributes and writes. Rows come over in memory that both threads have; a block is given
 * back when the next item after its last one is asked for.
 */
import { Worker } from 'node:worker_threads';
import { MmioError } from '../../base/errors.ts';
import { BLOCK_ROWS, Credits, shareBlock } from './decode-messages.ts';
import type { FromWorker, WorkerTask } from './decode-messages.ts';
import type { DecodedSoFar } from './decoder.ts';
import { RawBatch } from '../raw-batch.ts';
import type { RawEvent, RawTarget } from '../raw-events.ts';

const BLOCKS = 16;

export class ThreadedDecoder implements DecodedSoFar {
  readonly targets: RawTarget[] = [];
  otherLines: ReadonlyMap<string, number> = new Map();
  start: DecodedSoFar['start'];

  /**
   * All items of the files, in order, as one log. A batch is valid until the next item is asked
   * for. Throws MmioError as `openInput` and its chunks do.
   */
  async *decode(paths: readonly string[]): AsyncGenerator<RawBatch | RawEvent> {
    const blocks = Array.from({ length: BLOCKS }, shareBlock);
    const task: WorkerTask = {
      paths,
      blocks: blocks.map(({ memory }) => memory),
      credits: new SharedArrayBuffer(4),
    };
    const credits = new Credits(task.credits);
    credits.give(BLOCKS);
    const worker = new Worker(new URL('./decode-worker.js', import.meta.url), { workerData: task });
    const piece = new RawBatch(BLOCK_ROWS);
    try {
      for await (const message of messagesOf(worker)) {
        if (message.kind === 'failed') throw new MmioError(message.code, message.message, message);
        this.start = message.start;
        if (message.kind === 'end') {
          this.otherLines = message.otherLines;
          return;
        }
        this.targets.push(...message.targets);
        const block = blocks[message.block]?.block;
        if (block === undefined) throw new RangeError(`no block ${message.block}`);
        let row = 0;
        for (const item of message.items) {
          if (item.kind !== 'rows') {
            yield item;
            continue;
          }
          let batch = block;
          if (message.items.length > 1) {
            piece.length = 0;
            piece.append(block, row, row + item.count);
            batch = piece;
          }
          row += item.count;
          batch.length = item.count;
          batch.position = item.position;
          yield batch;
        }
        credits.give();
      }
    } finally {
      await worker.terminate();
    }
  }
}

/** What the thread posts, in order. Throws what ended it. */
async function* messagesOf(worker: Worker): AsyncGenerator<FromWorker> {
  let arrived: FromWorker[] = [];
  let failure: unknown;
  let wake = (): void => undefined;
  worker.on('message', (message: FromWorker) => {
    arrived.push(message);
    wake();
  });
  worker.on('error', (error) => {
    failure = error;
    wake();
  });
  for (;;) {
    const taken = arrived;
    arrived = [];
    yield* taken;
    if (arrived.length > 0) continue;
    if (failure !== undefined) throw failure as Error;
    await new Promise<void>((resolve) => (wake = resolve));
  }
}
