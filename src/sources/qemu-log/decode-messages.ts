/** What the two threads of `threaded-decoder.ts` say to each other, and the memory they share. */
import type { ErrorCode } from '../../base/errors.ts';
import type { SourcePosition } from '../../model/position.ts';
import type { DecodedSoFar } from './decoder.ts';
import { RawBatch } from '../raw-batch.ts';
import type { RawEvent, RawTarget } from '../raw-events.ts';

/** Rows of a block: those of a full batch of the decoder, so that such a one goes alone. */
export const BLOCK_ROWS = 4096;

/** The columns of a `RawBatch`, in the order in which its constructor asks for them. */
export type BlockMemory = readonly SharedArrayBuffer[];

export interface WorkerTask {
  readonly paths: readonly string[];
  readonly blocks: readonly BlockMemory[];
  readonly credits: SharedArrayBuffer;
}

/** A batch of the decoder as the next `count` rows of the block, or what came between two. */
export type RunOrEvent =
  | {
      readonly kind: 'rows';
      readonly count: number;
      readonly position: SourcePosition | undefined;
    }
  | RawEvent;

export type FromWorker =
  | {
      readonly kind: 'items';
      readonly block: number;
      readonly items: readonly RunOrEvent[];
      /** Those that are new. */
      readonly targets: readonly RawTarget[];
      readonly start: DecodedSoFar['start'];
    }
  | {
      readonly kind: 'end';
      readonly otherLines: ReadonlyMap<string, number>;
      readonly start: DecodedSoFar['start'];
    }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly evidence: string | undefined;
      readonly hint: string | undefined;
    };

/** A block, and its memory for the other thread. */
export function shareBlock(): { readonly block: RawBatch; readonly memory: BlockMemory } {
  const memory: SharedArrayBuffer[] = [];
  const block = new RawBatch(BLOCK_ROWS, (bytes) => {
    const column = new SharedArrayBuffer(bytes);
    memory.push(column);
    return column;
  });
  return { block, memory };
}

export function blockOf(memory: BlockMemory): RawBatch {
  let column = 0;
  return new RawBatch(BLOCK_ROWS, (bytes) => memory[column++] ?? new ArrayBuffer(bytes));
}

/** How many blocks are free to be filled; the thread that fills them sleeps while none is. */
export class Credits {
  readonly #free: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#free = new Int32Array(memory);
  }

  /** Blocks this thread: not for the one that writes. */
  take(): void {
    while (Atomics.load(this.#free, 0) === 0) Atomics.wait(this.#free, 0, 0);
    Atomics.sub(this.#free, 0, 1);
  }

  give(count = 1): void {
    Atomics.add(this.#free, 0, count);
    Atomics.notify(this.#free, 0);
  }
}
