/** The thread that reads and decodes ahead; `threaded-decoder.ts` starts it and says how. */
import { parentPort, workerData } from 'node:worker_threads';
import { MmioError } from '../../base/errors.ts';
import { openInput } from '../input.ts';
import { QemuLogDecoder } from './decoder.ts';
import {
  blockOf,
  BLOCK_ROWS,
  Credits,
  type FromWorker,
  type RunOrEvent,
  type WorkerTask,
} from './decode-messages.ts';
import { RawBatch } from '../raw-batch.ts';

/** Items of one message: a log of nothing but events must not grow it without end. */
const MAX_ITEMS = 512;

const task = workerData as WorkerTask;
const blocks = task.blocks.map(blockOf);
const credits = new Credits(task.credits);
const decoder = new QemuLogDecoder();

let blockIndex = -1;
let block: RawBatch;
/** Rows of the block that `items` tells of. */
let rows = 0;
let items: RunOrEvent[] = [];
let toldTargets = 0;

function post(message: FromWorker): void {
  parentPort?.postMessage(message);
}

/** Waits until there is a free block, and goes on in that one. */
function nextBlock(): RawBatch {
  credits.take();
  blockIndex = (blockIndex + 1) % blocks.length;
  const next = blocks[blockIndex];
  if (next === undefined) throw new RangeError(`no block ${blockIndex}`);
  next.length = 0;
  rows = 0;
  decoder.fill(next);
  return next;
}

function flush(): void {
  if (items.length === 0) return;
  const targets = decoder.targets.slice(toldTargets);
  toldTargets += targets.length;
  post({ kind: 'items', block: blockIndex, items, targets, start: decoder.start });
  items = [];
}

async function* chunks(): AsyncGenerator<Uint8Array> {
  for (const path of task.paths) yield* (await openInput(path)).chunks;
}

try {
  block = nextBlock();
  for await (const item of decoder.decode(chunks())) {
    if (item instanceof RawBatch) {
      items.push({ kind: 'rows', count: block.length - rows, position: block.position });
      rows = block.length;
    } else {
      items.push(item);
    }
    if (rows < BLOCK_ROWS && items.length < MAX_ITEMS) continue;
    flush();
    block = nextBlock();
  }
  flush();
  const { otherLines, start } = decoder;
  post({ kind: 'end', otherLines, start });
} catch (error) {
  flush();
  if (!(error instanceof MmioError)) throw error;
  const { code, message, evidence, hint } = error;
  post({ kind: 'failed', code, message, evidence, hint });
}
