/**
 * Writes down what one connection brings of a recording. Whatever is received and not yet written
 * lies in a queue of at most the window's size; offsets that the sender wants to be safe are noted in
 * the state, behind a sync of the outputs, and acknowledged then.
 */
import { MmioError } from '../base/errors.ts';
import { AnalysisPass } from '../analysis/analysis.ts';
import { checkEnd } from '../analysis/end-check.ts';
import { accessesOf, TotalsAnalysis } from '../analysis/totals.ts';
import { AccessBatch } from '../model/access-batch.ts';
import type { EndEvent } from '../model/events.ts';
import type { StreamItem } from '../model/stream.ts';
import { Tables } from '../model/tables.ts';
import { OutputSet } from '../sinks/output-set.ts';
import type { OutputFormat } from '../sinks/index.ts';
import type { TextExtra } from '../sinks/text-extra.ts';
import type { BridgeMessage, Hello } from '../wire/bridge-messages.ts';
import { FILE_HEADER_BYTES, FRAME_HEADER_BYTES } from '../wire/frame.ts';
import { PayloadDecoder, unknownFrameText, type UnknownItem } from '../wire/payload.ts';
import type { CollectedState, Point, StateFolder } from './collected-state.ts';
import { claimNames } from './output-names.ts';

/** What a sender may have on its way without an acknowledgement, and so what one may cost here. */
export const WINDOW_BYTES = 8 << 20;
/** More than a sender needs. */
const MAX_KEPT = 8;

export interface RecordingWriterOptions {
  readonly patterns: readonly string[];
  readonly format: OutputFormat | undefined;
  readonly textExtra: readonly TextExtra[] | undefined;
  readonly states: StateFolder;
}

export interface RecordingWriterEvents {
  readonly send: (message: BridgeMessage) => void;
  readonly onStall: (reason: string | undefined) => void;
  /** What a person should know. */
  readonly onNotice: (text: string) => void;
  /** It begins, with these outputs. */
  readonly onBegin: (outputs: readonly string[]) => void;
  readonly onFinished: (accesses: number) => void;
  /** It cannot go on. */
  readonly onFailure: (error: unknown) => void;
}

type Sync = Extract<BridgeMessage, { kind: 'sync' }>;
type Finish = Extract<BridgeMessage, { kind: 'finish' }>;

export class RecordingWriter {
  readonly #hello: Hello;
  readonly #options: RecordingWriterOptions;
  readonly #events: RecordingWriterEvents;
  readonly #decoder = new PayloadDecoder();
  readonly #abort = new AbortController();
  #state: CollectedState | undefined;
  #outputs: OutputSet | undefined;
  /** All before is in the outputs, is received, is acknowledged. */
  #captureOffset: number;
  #received: number;
  #acknowledged: number;
  #totals = new TotalsAnalysis();
  #pass = new AnalysisPass([this.#totals]);
  readonly #unknownFrames = new Set<number>();
  #queue: (Uint8Array | Sync | Finish)[] = [];
  #working: Promise<void> | undefined;
  #saving: Promise<void> | undefined;
  #closed = false;

  private constructor(
    hello: Hello,
    options: RecordingWriterOptions,
    events: RecordingWriterEvents,
    state: CollectedState | undefined,
  ) {
    this.#hello = hello;
    this.#options = options;
    this.#events = events;
    this.#state = state;
    this.#captureOffset = state?.points.at(-1)?.captureOffset ?? FILE_HEADER_BYTES;
    this.#received = this.#acknowledged = this.#captureOffset;
  }

  /**
   * Goes on where the sender and the state can both go on from. Throws MmioError `refused` where
   * there is no such offset, `io` where the outputs are not what they were.
   */
  static async open(
    hello: Hello,
    options: RecordingWriterOptions,
    events: RecordingWriterEvents,
  ): Promise<RecordingWriter> {
    const before = await options.states.read(hello.recording);
    const state = before && goOn(before, hello);
    if (state === undefined && hello.captureOffset > FILE_HEADER_BYTES) {
      throw new MmioError('refused', 'nothing is known of what was sent before', {
        evidence: `the sender has this recording from byte ${hello.captureOffset} on`,
        hint: 'was the collector started with another --state folder?',
      });
    }
    const writer = new RecordingWriter(hello, options, events, state);
    if (state !== undefined && !state.finished) await writer.#reopen(state);
    return writer;
  }

  get captureOffset(): number {
    return this.#captureOffset;
  }

  get finished(): boolean {
    return this.#state?.finished ?? false;
  }

  get accesses(): number {
    return accessesOf(this.#totals.result());
  }

  get outputs(): readonly string[] {
    return this.#state?.outputs ?? [];
  }

  /** Throws MmioError `protocol` for more than the window. */
  takeFrame(payload: Uint8Array): void {
    this.#received += FRAME_HEADER_BYTES + payload.length;
    if (this.#received - this.#acknowledged > WINDOW_BYTES) {
      throw new MmioError('protocol', 'more was sent than there is a window for', {
        evidence: `${this.#received - this.#acknowledged} bytes are not acknowledged`,
      });
    }
    this.#enqueue(payload);
  }

  takeMessage(message: Sync | Finish): void {
    if (message.captureOffset !== this.#received) {
      throw new MmioError('protocol', `${message.kind} is not for the offset at which it came`, {
        evidence: `offset ${message.captureOffset}, at ${this.#received}`,
      });
    }
    this.#enqueue(message);
  }

  /** Lets go of the outputs; what was not acknowledged will come again. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#queue = [];
    this.#abort.abort();
    await this.#working;
    await this.#saving;
    await this.#outputs?.abandon();
  }

  #enqueue(entry: Uint8Array | Sync | Finish): void {
    if (this.finished) throw new MmioError('protocol', 'something follows the end');
    if (this.#closed) return;
    this.#queue.push(entry);
    this.#working ??= this.#work()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => (this.#working = undefined));
  }

  #fail(error: unknown): void {
    if (!this.#closed) this.#events.onFailure(error);
    this.#closed = true;
    this.#queue = [];
  }

  async #work(): Promise<void> {
    // What comes with this chunk is queued first.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const entries = this.#queue;
      this.#queue = [];
      for (const entry of entries) {
        if (this.#closed) return;
        if (entry instanceof Uint8Array) await this.#write(entry);
        else if (entry.kind === 'sync') await this.#sync(entry);
        else await this.#finish();
      }
    }
  }

  async #write(payload: Uint8Array): Promise<void> {
    const item = this.#decoder.decode(payload);
    if (item instanceof AccessBatch) {
      const written = this.#writeItem(item);
      if (written !== undefined) await written;
    } else if (item.kind === 'header') await this.#begin(item.header);
    else if (item.kind === 'unknown') await this.#passOver(item);
    else if (item.kind === 'end') await this.#writeEnd(item);
    else await this.#writeItem(item);
    this.#captureOffset += FRAME_HEADER_BYTES + payload.length;
  }

  #writeItem(item: StreamItem): void | Promise<void> {
    if (this.#outputs === undefined || this.#captureOffset === FILE_HEADER_BYTES) {
      throw new MmioError('protocol', 'the recording does not begin with its header');
    }
    this.#pass.write(item);
    return this.#outputs.write(item);
  }

  /** Something may have become of it on the way, or before. */
  async #writeEnd(told: EndEvent): Promise<void> {
    const { end, doubts, loss } = checkEnd(told, this.#totals.result());
    for (const doubt of doubts) this.#events.onNotice(`the recording is INCOMPLETE: ${doubt}`);
    if (loss !== undefined) await this.#writeItem(loss);
    await this.#writeItem(end);
  }

  /** A newer sender tells of more than we can write down: the outputs say so. */
  async #passOver(item: UnknownItem): Promise<void> {
    if (this.#unknownFrames.has(item.field)) return;
    this.#unknownFrames.add(item.field);
    const text = unknownFrameText(item);
    const timeNs = this.#totals.result().lastTimeNs;
    await this.#writeItem({ kind: 'notice', timeNs, text });
    this.#events.onNotice(text);
  }

  async #begin(header: CollectedState['header']): Promise<void> {
    if (this.#captureOffset !== FILE_HEADER_BYTES)
      throw new MmioError('protocol', 'a second header');
    if (this.#outputs === undefined) {
      const { recording, sender, host, session, devices } = this.#hello;
      const outputs = await claimNames(this.#options.patterns, {
        host,
        session,
        device: devices.join('+') || 'unknown',
        time: stampOf(header.startSec),
      });
      const point: Point = {
        captureOffset: FILE_HEADER_BYTES,
        outputBytes: outputs.map(() => 0),
        leftOut: outputs.map(() => 0),
        tables: this.#pass.tables.snapshot(),
        totals: this.#totals.result(),
      };
      const points = [point];
      this.#state = {
        recording,
        sender,
        host,
        session,
        devices,
        outputs,
        header,
        points,
        finished: false,
      };
      await this.#options.states.write(this.#state);
      await this.#reopen(this.#state);
    }
    await this.#outputs?.begin(header);
    this.#events.onBegin(this.outputs);
  }

  async #reopen(state: CollectedState): Promise<void> {
    const point = lastOf(state.points);
    const { format, textExtra } = this.#options;
    this.#outputs = await OutputSet.open(state.outputs, {
      format,
      textExtra,
      signal: this.#abort.signal,
      onStall: this.#events.onStall,
      resumeAt: point.outputBytes,
    });
    this.#totals = new TotalsAnalysis(point.totals);
    this.#pass = new AnalysisPass([this.#totals], { tables: new Tables(point.tables) });
    if (point.captureOffset === FILE_HEADER_BYTES) return;
    this.#outputs.resume(state.header, point.tables, point.leftOut);
  }

  async #sync({ captureOffset, kept }: Sync): Promise<void> {
    const [outputs, state] = this.#begun();
    const outputBytes = await outputs.flush();
    const point: Point = {
      captureOffset,
      outputBytes,
      leftOut: outputs.leftOut,
      tables: this.#pass.tables.snapshot(),
      totals: this.#totals.result(),
    };
    if (kept.length > MAX_KEPT) {
      throw new MmioError('protocol', `${kept.length} offsets are to be kept`);
    }
    const before = state.points.filter(
      (it) => it.captureOffset < captureOffset && kept.includes(it.captureOffset),
    );
    this.#state = { ...state, points: [...before, point] };
    this.#saving ??= this.#save(outputs)
      .catch((error: unknown) => this.#fail(error))
      .finally(() => (this.#saving = undefined));
  }

  /** Frames go on being written meanwhile; what is to be safe by then is safe the next time. */
  async #save(outputs: OutputSet): Promise<void> {
    for (;;) {
      const [, state] = this.#begun();
      const { captureOffset } = lastOf(state.points);
      if (captureOffset === this.#acknowledged) return;
      await outputs.sync();
      await this.#options.states.write(state);
      this.#acknowledged = captureOffset;
      this.#events.send({ kind: 'acknowledgement', captureOffset });
    }
  }

  async #finish(): Promise<void> {
    const [outputs, state] = this.#begun();
    await this.#saving;
    if (this.#acknowledged !== this.#captureOffset) {
      throw new MmioError('protocol', 'the end came before all was acknowledged');
    }
    this.#outputs = undefined;
    await outputs.end();
    this.#state = { ...state, finished: true };
    await this.#options.states.write(this.#state);
    this.#events.send({ kind: 'finished' });
    this.#events.onFinished(this.accesses);
  }

  #begun(): [OutputSet, CollectedState] {
    if (this.#outputs === undefined || this.#state === undefined) {
      throw new MmioError('protocol', 'the recording has not begun');
    }
    return [this.#outputs, this.#state];
  }
}

/** The state to go on with; the same sender goes on at the last point, another where it says. */
function goOn(state: CollectedState, hello: Hello): CollectedState {
  if (state.sender === hello.sender) {
    if (lastOf(state.points).captureOffset >= hello.captureOffset) return state;
    throw new MmioError('refused', 'the collector has less than it acknowledged', {
      evidence: `${lastOf(state.points).captureOffset} bytes; the sender has what follows ${hello.captureOffset}`,
      hint: 'was its --state folder put back from a copy?',
    });
  }
  const index = state.points.findIndex(
    ({ captureOffset }) => captureOffset === hello.captureOffset,
  );
  if (index < 0) {
    throw new MmioError('refused', 'the recording cannot be resumed at that offset', {
      evidence: `byte ${hello.captureOffset}; known are ${state.points.map(({ captureOffset }) => captureOffset).join(', ')}`,
    });
  }
  const points = state.points.slice(0, index + 1);
  return { ...state, sender: hello.sender, points, finished: false };
}

function lastOf(points: readonly Point[]): Point {
  const last = points.at(-1);
  if (last === undefined) throw new MmioError('damaged', "the collector's state has no point");
  return last;
}

/** `20261123T101500`, UTC */
function stampOf(startSec: number): string {
  const date = new Date(startSec * 1000);
  const text = Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
  return text.replace(/[-:]/g, '').replace(/\..*$/, '');
}
