/** One capture that pages look at, finished or growing. */
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError, describeError } from '../base/errors.ts';
import { v1 } from '../wire/generated/mmiobridge.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import { CaptureIndex } from './capture-index.ts';
import { FileFollower } from './file-follower.ts';
import { Selections } from './selections.ts';

export interface RecorderStatus {
  /** `away`: its host cannot be reached just now, and is waited for. */
  readonly state: 'recording' | 'guest paused' | 'dropping' | 'draining' | 'away';
  /** Why nothing is written just now. */
  readonly stalled: string | null;
  readonly spoolBytes: number;
  readonly spoolLimitBytes: number;
}

/** The way to whoever records. */
export interface RecorderLink {
  /** Undefined: nobody records, as far as we can tell. */
  status(): Promise<RecorderStatus | undefined>;
  /** Throws MmioError where there is nobody. */
  mark(text: string): Promise<void>;
}

const STATUS_MS = 500;
/** The rate is that of so long. */
const RATE_MS = 2000;
const REOPEN_MS = 100;

const { State } = v1.Summary;
const STATES = {
  recording: State.STATE_RECORDING,
  'guest paused': State.STATE_PAUSED,
  dropping: State.STATE_DROPPING,
  draining: State.STATE_DRAINING,
  away: State.STATE_AWAY,
} as const;

export class CaptureFeed {
  readonly path: string;
  readonly link: RecorderLink;
  index: CaptureIndex;
  selections: Selections;
  /** Grows when the file was replaced, and everything begins again. */
  generation = 0;

  readonly #stop = new AbortController();
  readonly #log: (line: string) => void;
  readonly #samples: { readonly atMs: number; readonly rows: number }[] = [];
  #status: RecorderStatus | undefined;
  #running: Promise<void> = Promise.resolve();

  private constructor(
    path: string,
    index: CaptureIndex,
    link: RecorderLink,
    log: (line: string) => void,
  ) {
    this.path = path;
    this.link = link;
    this.index = index;
    this.#log = log;
    this.selections = new Selections(index, (error) => this.#onFailure(error));
  }

  /**
   * Begins to read. Throws MmioError `not-found`; what goes wrong later is handed to `log`, and
   * what was read until then stays.
   */
  static async open(
    path: string,
    link: RecorderLink,
    log: (line: string) => void,
  ): Promise<CaptureFeed> {
    const feed = new CaptureFeed(path, new CaptureIndex(await FileFollower.open(path)), link, log);
    feed.#running = feed.#run();
    void feed.#askRecorder();
    return feed;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.index.follower.close();
  }

  summary(): mmiobridge.v1.Summary.$Properties {
    const { index } = this;
    const { follower, totals } = index;
    const ended = index.end !== undefined;
    const status = ended ? undefined : this.#status;
    const running = status === undefined ? State.STATE_OPEN : STATES[status.state];
    return {
      name: basename(this.path),
      state: ended ? State.STATE_ENDED : running,
      reads: totals.reads,
      writes: totals.writes,
      interrupts: totals.interrupts,
      lastTimeNs: totals.lastTimeNs,
      rate: this.#rate(),
      lost: totals.lost,
      lossEvents: totals.lossEvents,
      damages: totals.damages,
      unknownFrames: index.unknownFrames,
      doubts: index.doubts,
      complete: index.end?.complete === true,
      bytesSeen: follower.position,
      bytes: Math.max(follower.length, follower.position),
      canMark: status !== undefined && status.state !== 'away',
      stalled: status?.stalled ?? '',
      spoolBytes: status?.spoolBytes ?? 0,
      spoolLimitBytes: status?.spoolLimitBytes ?? 0,
    };
  }

  /** How much of the file can be read as a capture: of one that grows, up to its last whole frame. */
  get wholeBytes(): number {
    const grows = this.index.end === undefined && this.#status !== undefined;
    return grows ? this.index.framesEnd : Infinity;
  }

  #rate(): number {
    const { index } = this;
    const now = performance.now();
    // While what was recorded before is read, the rate would be that of our reading.
    if (!index.follower.atEnd || index.end !== undefined) {
      this.#samples.length = 0;
      return 0;
    }
    this.#samples.push({ atMs: now, rows: index.rows });
    while (now - (this.#samples[1]?.atMs ?? now) > RATE_MS) this.#samples.shift();
    const [first] = this.#samples;
    if (first === undefined || now - first.atMs < 100) return 0;
    return ((index.rows - first.rows) * 1000) / (now - first.atMs);
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    try {
      for (;;) {
        try {
          await this.index.read(this.#stop.signal);
          return;
        } catch (error) {
          if (!(error instanceof MmioError) || error.code !== 'closed') throw error;
        }
        await this.#beginAgain();
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#fail(error);
    }
  }

  /** The file was replaced. Throws when the feed is closed meanwhile. */
  async #beginAgain(): Promise<void> {
    const before = this.index.follower;
    const { signal } = this.#stop;
    for (;;) {
      signal.throwIfAborted();
      try {
        this.index = new CaptureIndex(await FileFollower.open(this.path));
        break;
      } catch (error) {
        if (!(error instanceof MmioError)) throw error;
        // Between two files there may be none.
        await sleep(REOPEN_MS, undefined, { signal });
      }
    }
    this.selections = new Selections(this.index, (error) => this.#onFailure(error));
    this.generation++;
    await before.close();
  }

  /** A selection that reads what is not there any more is one of the file before. */
  #onFailure(error: unknown): void {
    if (error instanceof MmioError && error.code === 'closed') return;
    if (!this.#stop.signal.aborted) this.#fail(error);
  }

  #fail(error: unknown): void {
    this.#log(describeError(error));
  }

  async #askRecorder(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted && this.index.end === undefined) {
      this.#status = await this.link.status().catch(() => undefined);
      await sleep(STATUS_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}
