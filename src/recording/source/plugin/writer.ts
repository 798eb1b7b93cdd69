/**
 * `--source plugin`: takes the plugin's records off its socket and QEMU's log from its file, puts
 * them in order, and writes them into the spool. What the recorder makes of it then depends on the
 * spool alone. What a recorder that is killed has in its hands is lost, and the next one counts it.
 */
import { goneFrame } from '../../../sources/plugin/frames.ts';
import { WireType, message } from '../../../sources/plugin/wire.ts';
import type { PluginLink } from './link.ts';
import type { Failure } from '../../../base/failure.ts';
import { SegmentFile } from '../../spool/segment-file.ts';
import type { Disturbance, SpoolWriter } from '../../spool/spool-writer.ts';
import type { LogTail, LogWriter } from './log-tail.ts';
import { END_OF_TIME, isLater, Merge, type Moment } from './merge.ts';

const POLL_MS = 10;
/** What QEMU's death leaves in the socket is read long before. */
const CLOSE_LIMIT_MS = 5000;
/** The plugin is at work when it says so every 10 ms: longer than a busy host holds it up. */
const CATCH_UP_LIMIT_MS = 1000;

export interface WriterParts {
  readonly link: PluginLink;
  readonly log: LogTail;
  /** undefined: QEMU is gone. */
  readonly vm: LogWriter | undefined;
  /** What somebody else has done to QEMU's log. */
  readonly disturbance: SpoolWriter['disturbance'];
  readonly failure: Failure;
  readonly onProblem: (message: string) => void;
}

export class PluginWriter implements SpoolWriter {
  readonly #parts: WriterParts;
  /** undefined: QEMU is gone. */
  #vm: LogWriter | undefined;
  readonly #merge = new Merge();
  readonly #timer: NodeJS.Timeout;
  readonly #waiting = new Set<() => void>();
  readonly #segment: SegmentFile;
  #unwritten: Buffer[] = [];
  /** Up to when it is to be written down next. */
  #due: Moment | undefined;
  #working: Promise<void> | undefined;
  /** What ends the stream is written: the plugin's last word, or that there was none. */
  #isEnded = false;
  #closed: Promise<void> | undefined;
  #onClosed: () => void = () => undefined;
  #finished = false;

  /** @param path the segment that is written first */
  constructor(path: string, parts: WriterParts) {
    this.#parts = parts;
    this.#vm = parts.vm;
    this.#segment = new SegmentFile(path, parts.onProblem);
    if (parts.link.connected) this.#expectClose();
    parts.link.listenWith({
      onMessage: (type, body) => parts.failure.guard(() => this.#take(type, body)),
      onClose: () => parts.failure.guard(() => this.#close()),
    });
    this.#timer = setInterval(() => parts.failure.guard(() => this.#poll()), POLL_MS);
  }

  #expectClose(): void {
    this.#closed = new Promise((resolve) => (this.#onClosed = resolve));
  }

  async #take(type: number, body: Buffer): Promise<void> {
    if (this.#closed === undefined) this.#expectClose();
    this.#isEnded = false;
    if (type === WireType.records) this.#merge.addRecords(body);
    else if (type === WireType.tick) {
      await this.#round({ hi: body.readUInt32LE(4), lo: body.readUInt32LE(0) });
    } else if (type === WireType.farewell) {
      await this.#round(END_OF_TIME);
      this.#write(message(WireType.farewell, body));
      this.#isEnded = true;
    }
  }

  /** The connection is closed: all that came through it is written down. */
  async #close(): Promise<void> {
    const onClosed = this.#onClosed;
    this.#closed = undefined;
    await this.#round(END_OF_TIME);
    this.#endStream();
    onClosed();
  }

  #endStream(): void {
    if (!this.#isEnded) this.#write(goneFrame());
    this.#isEnded = true;
  }

  /** Where no plugin ticks, the log alone goes on. */
  async #poll(): Promise<void> {
    if (this.#unwritten.length > 0) this.#write();
    else if (!this.#parts.link.connected) await this.#round(END_OF_TIME);
  }

  /** Writes down what has happened until a moment of which all is here; one round after another. */
  #round(until: Moment): Promise<void> {
    if (this.#due === undefined || isLater(until, this.#due)) this.#due = until;
    this.#working ??= this.#work().finally(() => (this.#working = undefined));
    return this.#working;
  }

  async #work(): Promise<void> {
    for (let until; (until = this.#due) !== undefined && !this.#finished;) {
      this.#due = undefined;
      // After the records were taken: a line that tells of a mapping is there before an access to it.
      this.#merge.addLines(await this.#parts.log.read(this.#vm));
      const frames = this.#merge.take(until);
      if (frames.length > 0) this.#write(...frames);
      if (this.#unwritten.length > 0) continue;
      for (const resolve of this.#waiting) resolve();
      this.#waiting.clear();
    }
  }

  /** What the spool has no room for is kept, and the plugin's vCPUs wait for it. */
  #write(...frames: Buffer[]): void {
    if (this.#finished) return;
    this.#unwritten.push(...frames);
    const [only] = this.#unwritten;
    const bytes = this.#unwritten.length === 1 ? only! : Buffer.concat(this.#unwritten);
    const hasRoom = this.#segment.append(bytes);
    if (hasRoom) this.#unwritten = [];
    this.#parts.link.hear(hasRoom);
  }

  /** Resolves when what the guest has done until now is in the spool. */
  async caughtUp(): Promise<void> {
    // The tick that is under way may be of before.
    for (let ticks = 0; ticks < 2 && this.#parts.link.connected; ticks++) {
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
        setTimeout(resolve, CATCH_UP_LIMIT_MS).unref();
      });
    }
  }

  /** As `Vm` does for QEMU's log. */
  logInto(path: string): Promise<void> {
    this.#segment.moveTo(path);
    return Promise.resolve();
  }

  trace(on: boolean): Promise<void> {
    this.#parts.link.record(on);
    return Promise.resolve();
  }

  /** Segments are left at once. */
  holdsOpen(): boolean {
    return false;
  }

  disturbance(): Promise<Disturbance | undefined> {
    return this.#parts.disturbance();
  }

  /** QEMU has ended: writes down what it has left. */
  async finish(): Promise<void> {
    if (this.#finished) return;
    if (this.#closed !== undefined) {
      const late = new Promise((resolve) => setTimeout(resolve, CLOSE_LIMIT_MS).unref());
      await Promise.race([this.#closed, late]);
    }
    this.#vm = undefined;
    await this.#round(END_OF_TIME);
    // It may not even have connected to the recorder that goes on.
    this.#endStream();
    while (this.#unwritten.length > 0) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      this.#write();
    }
    this.stop();
  }

  /** Writes no more. */
  stop(): void {
    if (this.#finished) return;
    this.#finished = true;
    clearInterval(this.#timer);
    this.#segment.close();
    this.#parts.failure.guard(() => this.#parts.log.close());
    this.#parts.link.close();
  }
}
