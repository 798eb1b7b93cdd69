/** The recordings that pages can choose from. One that nobody looks at is read by nobody. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { CaptureFeed, type RecorderLink } from './capture-feed.ts';

/** So many that nobody looks at any more stay open, for those who come back. */
const KEPT = 4;

export interface RecordingEntry {
  readonly id: string;
  /** A capture; it may still grow. */
  readonly path: string;
  /** What it is a recording of. */
  readonly name: string;
  readonly state: 'recording' | 'waiting' | 'finished';
  readonly link: RecorderLink;
}

/** As pages are told of it, in JSON. */
export interface ListedRecording {
  readonly id: string;
  readonly file: string;
  readonly name: string;
  readonly state: RecordingEntry['state'];
  readonly bytes: number;
  /** Of the last change, in ms since 1970. */
  readonly changedMs: number;
}

interface Open {
  readonly feed: Promise<CaptureFeed>;
  users: number;
}

export class Recordings {
  readonly #log: (line: string) => void;
  /** In the order in which they came. */
  readonly #entries = new Map<string, RecordingEntry>();
  /** By id, least recently used first. */
  readonly #open = new Map<string, Open>();

  /** What goes wrong with one of them later is handed to `log`. */
  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /** Adds it, or takes the place of what was said of it before. */
  put(entry: RecordingEntry): void {
    this.#entries.set(entry.id, entry);
  }

  list(): Promise<readonly ListedRecording[]> {
    return Promise.all(
      [...this.#entries.values()].map(async ({ id, path, name, state }) => {
        const { size, mtimeMs } = await stat(path).catch(() => ({ size: 0, mtimeMs: 0 }));
        return { id, file: basename(path), name, state, bytes: size, changedMs: mtimeMs };
      }),
    );
  }

  /** To be given back with `release`. Undefined where there is none; throws MmioError `not-found`. */
  async acquire(id: string): Promise<CaptureFeed | undefined> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    const open = this.#open.get(id) ?? { feed: this.#begin(entry), users: 0 };
    open.users++;
    this.#open.delete(id);
    this.#open.set(id, open);
    try {
      return await open.feed;
    } catch (error) {
      if (this.#open.get(id) === open) this.#open.delete(id);
      throw error;
    }
  }

  release(id: string): void {
    const entry = this.#open.get(id);
    if (entry === undefined) return;
    entry.users--;
    let idle = [...this.#open.values()].filter(({ users }) => users === 0).length;
    for (const [old, { users }] of this.#open) {
      if (idle <= KEPT) return;
      if (users > 0) continue;
      this.#close(old);
      idle--;
    }
  }

  close(): void {
    for (const id of this.#open.keys()) this.#close(id);
  }

  #begin({ path, link }: RecordingEntry): Promise<CaptureFeed> {
    return CaptureFeed.open(path, link, (what) => this.#log(`${path}: ${what}`));
  }

  #close(id: string): void {
    const open = this.#open.get(id);
    this.#open.delete(id);
    // One that could not be opened need not be closed.
    void open?.feed.then((feed) => feed.close()).catch(() => undefined);
  }
}
