/** The terminal while a recording runs: a status line, and the keys `m` and `q`. */
import { count, bytes } from '../base/format.ts';
import { clearStatus, duration, hasStatusLine, say, showStatus } from './print.ts';
import { describeError } from '../base/errors.ts';
import type { RecordingStatus } from '../recording/session/status.ts';

const REDRAW_MS = 250;
/** Off a terminal a line now and then is enough to see that it lives. */
const PLAIN_MS = 10_000;

export interface TerminalActions {
  readonly status: () => Promise<RecordingStatus>;
  readonly mark: (text: string) => Promise<unknown>;
  readonly quit: () => void;
  readonly interrupt: () => void;
}

export class Terminal {
  readonly #actions: TerminalActions;
  readonly #keys: boolean;
  #timer: NodeJS.Timeout | undefined;
  #prompt: string | undefined;
  #last: { readonly total: number; readonly atMs: number } | undefined;
  readonly #onKeys = (data: Buffer) => this.#type(data.toString('utf8'));

  /** @param keys whether standard input is ours to read */
  constructor(actions: TerminalActions, keys: boolean) {
    this.#actions = actions;
    this.#keys = keys && process.stdin.isTTY && process.stderr.isTTY;
  }

  start(): void {
    const live = hasStatusLine();
    this.#timer = setInterval(
      () => {
        this.#tick(live).catch((error: unknown) => showStatus(describeError(error)));
      },
      live ? REDRAW_MS : PLAIN_MS,
    );
    if (!this.#keys) return;
    process.stdin.setRawMode(true);
    process.stdin.on('data', this.#onKeys);
    process.stdin.resume();
  }

  stop(): void {
    clearInterval(this.#timer);
    clearStatus();
    if (!this.#keys) return;
    process.stdin.off('data', this.#onKeys);
    process.stdin.setRawMode(false);
    process.stdin.pause();
  }

  async #tick(live: boolean): Promise<void> {
    if (this.#prompt !== undefined) return;
    const line = this.#line(await this.#actions.status());
    if (live) showStatus(this.#keys ? `${line}  [m mark, q end]` : line);
    else say(line);
  }

  #line(status: RecordingStatus): string {
    const { counters } = status;
    const total = counters.reads + counters.writes;
    const nowMs = performance.now();
    const last = this.#last ?? { total: 0, atMs: nowMs - 1000 * status.elapsedSeconds };
    const rate = ((total - last.total) * 1000) / Math.max(1, nowMs - last.atMs);
    this.#last = { total, atMs: nowMs };
    const byDevice = Object.entries(status.devices).map(([name, n]) => `${name} ${count(n)}`);
    const parts = [
      duration(status.elapsedSeconds),
      `${count(total)} accesses`,
      `${count(rate)}/s`,
      ...(byDevice.length > 1 ? byDevice : []),
      counters.lossEvents === 0 ? 'lost 0' : `LOST ${counters.lost || '?'}`,
      `spool ${bytes(status.spoolBytes)}`,
      ...(status.state === 'recording' ? [] : [status.state.toUpperCase()]),
    ];
    return parts.join('  ');
  }

  #type(keys: string): void {
    for (const key of keys) {
      if (key === '\x03') this.#actions.interrupt();
      else if (this.#prompt !== undefined) this.#typeMark(key);
      else if (key === 'q') this.#actions.quit();
      else if (key === 'm') {
        this.#prompt = '';
        showStatus('mark: ');
      }
    }
  }

  /** Without room for the mark, the recording goes on all the same. */
  async #mark(text: string): Promise<void> {
    try {
      await this.#actions.mark(text);
      say(`marked: ${text}`);
    } catch (error) {
      say(`the mark could not be put in: ${describeError(error)}`);
    }
  }

  #typeMark(key: string): void {
    const text = this.#prompt ?? '';
    if (key === '\r' || key === '\n') {
      this.#prompt = undefined;
      if (text.trim() === '') return;
      void this.#mark(text.trim());
      return;
    }
    if (key === '\x1b') this.#prompt = undefined;
    else if (key === '\x7f' || key === '\b') this.#prompt = text.slice(0, -1);
    else if (key >= ' ') this.#prompt = text + key;
    if (this.#prompt !== undefined) showStatus(`mark: ${this.#prompt}`);
  }
}
