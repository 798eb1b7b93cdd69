/**
 * The loop of a running recording: spool, decoder, attribution, outputs; checkpoints on the way.
 *
 * Bytes of the spool and entries of the journal are its only inputs, and a checkpoint holds all
 * state between two of them. So the outputs depend on nothing else, and a recorder that is killed
 * goes on from the checkpoint as if it had never stopped.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError, isNoRoom } from '../../base/errors.ts';
import { Failure } from '../../base/failure.ts';
import type { Notice } from '../../base/notice.ts';
import { wallClockMs } from '../../base/wall-clock.ts';
import { countersOf } from '../../analysis/totals.ts';
import type { Vm, VmEnd } from '../../machine/vm.ts';
import type { CoverageRange, CoverageStatement } from '../../model/coverage.ts';
import type { Counters, RecordingEvent, RecordingHeader } from '../../model/events.ts';
import { isBefore, type SourcePosition } from '../../model/position.ts';
import type { StreamItem } from '../../model/stream.ts';
import type { OutputSet } from '../../sinks/output-set.ts';
import { RawBatch } from '../../sources/raw-batch.ts';
import type { RawEvent } from '../../sources/raw-events.ts';
import { takeCheckpoint, type RecordingState } from '../session/checkpoint.ts';
import type { Journal } from '../session/journal.ts';
import type { SessionFolder } from '../session/session-folder.ts';
import type { UserLogWriter } from '../session/user-log.ts';
import { isTrapped, mergeCoverage, settled } from './known-coverage.ts';
import { StderrLimit } from '../../machine/stderr-limit.ts';
import type { RecordingSource } from '../source/recording-source.ts';
import type { Spool } from '../spool/spool.ts';

const POLL_MS = 10;
/** A read that brings this much says that we are behind: the next follows at once. */
const BEHIND_BYTES = 512 * 1024;
const CHECKPOINT_MS = 1000;
const DAMAGED = 'a line of the log came only in part: what else could not be written is not here';
/** Firmware moves BARs dozens of times: between two it is not asked each time how they are mapped. */
const LOOK_MS = 100;
/** How long QEMU is given to close a segment, where we cannot see whether it has. */
const CLOSE_GRACE_MS = 500;

export interface RecorderParts {
  readonly folder: SessionFolder;
  readonly header: RecordingHeader;
  readonly spool: Spool;
  readonly journal: Journal;
  readonly source: RecordingSource;
  readonly state: RecordingState;
  readonly outputs: OutputSet;
  /** undefined: QEMU is gone, and what it left is all there is. */
  readonly vm: Vm | undefined;
  /** Asks QMP again what devices there are and where; not called when there is no VM. */
  readonly refreshDevices: () => Promise<void>;
  /**
   * Asks QEMU how the selected devices are mapped now: aliases, and what is trapped; and first, which
   * is many questions, what devices there are.
   */
  readonly lookAtMemory: (what: 'mappings' | 'devices') => Promise<readonly CoverageRange[]>;
  readonly userLog: UserLogWriter | undefined;
  readonly notice: Notice;
  /** Is shown each item before it is written. */
  readonly observe?: ((item: StreamItem) => void) | undefined;
  /** QEMU is ours, and its standard error in the folder. */
  readonly launched: boolean;
}

export interface RecordingEnd {
  readonly vm: VmEnd | undefined;
  readonly counters: Counters;
  readonly coverage: CoverageStatement;
  /** Nothing is missing, as far as anyone can tell. */
  readonly complete: boolean;
  /** Outputs that somebody has taken away meanwhile, with what was in them. */
  readonly removed: readonly string[];
}

export class Recorder {
  readonly #parts: RecorderParts;
  #coverage: readonly CoverageRange[];
  #mapSeen = false;
  #headStated: boolean;
  #vmEnd: VmEnd | undefined;
  /** Nothing more will be written to the spool. */
  #sourceEnded: boolean;
  /** A segment has been read to its end: the next checkpoint makes room for another. */
  #checkpointDue = false;
  /** The checkpoint that is being made safe. */
  #saving: Promise<void> | undefined;
  #lastCheckpointMs = 0;
  #lookedAtMs = -Infinity;
  /** Of a QEMU that we started. */
  readonly #stderr: StderrLimit | undefined;
  /** Why the last checkpoint could not be written. */
  #noRoom: string | undefined;
  readonly #failure = new Failure();
  #failed: { readonly error: unknown } | undefined;

  constructor(parts: RecorderParts) {
    this.#parts = parts;
    const { state, source, vm, folder } = parts;
    if (parts.launched) this.#stderr = new StderrLimit(folder.qemuStderr, parts.notice);
    this.#coverage = state.coverage;
    this.#headStated = state.headStated;
    this.#sourceEnded = false;
    if (vm === undefined) this.sourceEnded();
    // The loop looks between two steps; whoever waits is not held up by a failure elsewhere.
    for (const failure of [this.#failure.promise, source.failure]) {
      failure.catch((error: unknown) => void (this.#failed ??= { error }));
    }
    void vm?.ended.then((end) => {
      this.#vmEnd = end;
      this.sourceEnded();
    });
  }

  /** QEMU writes no more into the spool: it has been told to log elsewhere, or is gone. */
  sourceEnded(): void {
    this.#failure.guard(async () => {
      try {
        await this.#parts.source.finish();
      } finally {
        this.#sourceEnded = true;
      }
    });
  }

  get counters(): Counters {
    const { state, source } = this.#parts;
    const others = state.attribution.otherLines(source.decoder.otherLines);
    return countersOf(state.counts.totals, others);
  }

  get lastTimeNs(): number {
    return this.#parts.state.attribution.lastTimeNs;
  }

  /** Makes the beginning safe: a recorder that is killed from here on can be resumed. */
  async begin(): Promise<void> {
    await this.#checkpoint();
    await this.#saving;
    this.#throwFailure();
  }

  #throwFailure(): void {
    if (this.#failed !== undefined) throw this.#failed.error;
  }

  /** Runs until the source has ended and all that it wrote is in the outputs. */
  async run(): Promise<RecordingEnd> {
    const { spool, journal, source, state } = this.#parts;
    for (;;) {
      this.#throwFailure();
      const ended = this.#sourceEnded;
      const bytesRead = await this.#readOnce();
      let taken = false;
      for (let entry; (entry = journal.take(spool.position)) !== undefined;) {
        taken = true;
        state.attribution.note(entry.event);
        await this.#drainAttribution();
      }
      if (this.#mapSeen && !this.#headStated) await this.#stateHead();
      const late = performance.now() - this.#lastCheckpointMs > CHECKPOINT_MS;
      if (late || this.#checkpointDue) await this.#checkpoint();
      if (bytesRead > 0) {
        // Reading what a busy guest has logged meanwhile would be thousands of reads of a few lines
        // each, all paid for with the processor that the guest needs.
        if (bytesRead < BEHIND_BYTES && !ended && !spool.behind) await sleep(POLL_MS);
        continue;
      }
      // The entry stood in the way of what lies behind its place.
      if (taken) continue;
      if (spool.behind) await this.#leaveSegment();
      else if (!ended || journal.nextAt !== undefined) await sleep(POLL_MS);
      else if (!spool.adoptNext()) break;
    }
    journal.close();
    source.decoder.finish();
    await this.#drain();
    return this.#end();
  }

  /** Reads and processes what is there, up to the next journal entry; how many bytes. */
  async #readOnce(): Promise<number> {
    const { spool, source, state } = this.#parts;
    const until = this.#readUntil();
    const { bytes } = await spool.read(until);
    if (bytes.length === 0) {
      if (until === undefined && !spool.behind) {
        await this.#lookAtMoved();
        source.onReadAll();
        await this.#drain();
      }
      return 0;
    }
    source.onRead();
    state.attribution.pollTimeNs = this.nowNs();
    source.decoder.feed(bytes);
    await this.#drain();
    return bytes.length;
  }

  /** The next journal entry, or as far as the source lets us read. */
  #readUntil(): SourcePosition | undefined {
    const { journal, source, spool } = this.#parts;
    const entry = journal.nextAt;
    const limit = source.readLimit(spool.position);
    if (entry === undefined || limit === undefined) return entry ?? limit;
    return isBefore(limit, entry) ? limit : entry;
  }

  /** There may be more in this segment, which may not be read yet. */
  #mayNotRead(): boolean {
    const { source, spool } = this.#parts;
    const limit = source.readLimit(spool.position);
    return limit !== undefined && limit.segment <= spool.position.segment;
  }

  /** Session time by the wall clock, as QEMU's stamps have it: also when the clock is set. */
  nowNs(): number {
    const { startSec, startNs } = this.#parts.header;
    const nowMs = wallClockMs();
    const sec = Math.floor(nowMs / 1000);
    const ns = Math.round((nowMs - sec * 1000) * 1e6);
    return (sec - startSec) * 1e9 + ns - startNs;
  }

  async #drain(): Promise<void> {
    const { source, state } = this.#parts;
    const { attribution } = state;
    for (let item; (item = source.decoder.next()) !== undefined;) {
      if (this.#needsDevices(item)) await this.#parts.refreshDevices();
      if (!('kind' in item) && attribution.devices.addresses.consumeMoved()) {
        await this.#lookAtMemory();
      }
      attribution.take(item);
      await this.#drainAttribution();
      if (!('kind' in item) || item.kind !== 'damage') continue;
      // Whoever writes the spool writes whole lines, unless there is no room: then more is missing.
      const { timeNs } = item;
      attribution.take({ kind: 'loss', timeNs, count: -1, durationNs: 0, reason: DAMAGED });
      await this.#drainAttribution();
    }
  }

  /** A mapping of a function that QMP has not told of: hot-plugged, or behind a bridge. */
  #needsDevices(item: object): boolean {
    if (!('kind' in item) || this.#parts.vm === undefined || this.#sourceEnded) return false;
    const event = item as RawEvent;
    return event.kind === 'mapping' && this.#parts.state.attribution.devices.isUnknown(event);
  }

  async #drainAttribution(): Promise<void> {
    const { attribution } = this.#parts.state;
    for (let item; (item = attribution.next()) !== undefined;) await this.#write(item);
  }

  async #write(item: StreamItem): Promise<void> {
    const { state, source, outputs } = this.#parts;
    if (item instanceof RawBatch) source.complete(item, state.counts.tables);
    state.counts.write(item);
    this.#parts.observe?.(item);
    if ('kind' in item && item.kind === 'map') this.#mapSeen = true;
    const written = outputs.write(item);
    if (written !== undefined) await written;
  }

  /** A BAR has come to a new place, and nobody accesses it there: it may bypass QEMU. */
  async #lookAtMoved(): Promise<void> {
    if (performance.now() - this.#lookedAtMs < LOOK_MS) return;
    const { addresses } = this.#parts.state.attribution.devices;
    if (addresses.consumeMoved()) await this.#lookAtMemory('mappings');
  }

  /** A BAR has come to a new place: QEMU can say how it is mapped there. */
  async #lookAtMemory(what: 'mappings' | 'devices' = 'devices'): Promise<void> {
    if (this.#sourceEnded || this.#parts.vm?.isEnding === true) return;
    this.#lookedAtMs = performance.now();
    const ranges = await this.#parts.lookAtMemory(what).catch(() => []);
    this.#coverage = mergeCoverage(this.#coverage, ranges);
  }

  /** After the first MAP: what is known by now of what will be seen. */
  async #stateHead(): Promise<void> {
    this.#headStated = true;
    await this.#lookAtMemory();
    await this.#write(this.#statement('head'));
  }

  #statement(phase: 'head' | 'end'): Extract<RecordingEvent, { kind: 'coverage' }> {
    const { source, state } = this.#parts;
    const { devices, lastTimeNs } = state.attribution;
    const notes = [...state.notes, ...devices.doubts, ...source.notes(phase, devices.selected)];
    const ranges = settled(this.#coverage, devices.selected, state.trapped);
    const statement = { phase, ranges, notes };
    return { kind: 'coverage', timeNs: lastTimeNs, statement };
  }

  /** The segment has been read to its end and QEMU logs into a newer one: is anyone still in it? */
  async #leaveSegment(): Promise<void> {
    const { spool, source } = this.#parts;
    const { decoder, writer } = source;
    const path = spool.readingPath;
    const deadline = performance.now() + CLOSE_GRACE_MS;
    while (!this.#sourceEnded && writer !== undefined) {
      const open = writer.holdsOpen(path);
      if (open === false || (open === undefined && performance.now() > deadline)) break;
      await sleep(POLL_MS / 5);
    }
    // What a vCPU wrote into it after we last looked, before it was closed; first comes an entry
    // of the journal that has its place in this segment.
    const waiting = this.#parts.journal.nextAt;
    if (waiting !== undefined && waiting.segment <= spool.position.segment) return;
    if ((await this.#readOnce()) > 0) return;
    if (this.#mayNotRead()) {
      await sleep(POLL_MS);
      return;
    }
    decoder.finish();
    await this.#drain();
    await spool.advanceReader();
    decoder.beginSegment(spool.position.segment, 0);
    this.#checkpointDue = true;
  }

  /**
   * Everything so far is handed to the system; then, while the loop goes on, it is synced to disk,
   * the state of this place is written down, and the segments before it are deleted.
   */
  async #checkpoint(): Promise<void> {
    const { folder, outputs, spool, userLog, source, journal, state } = this.#parts;
    this.#lastCheckpointMs = performance.now();
    if (this.#saving !== undefined) return;
    this.#checkpointDue = false;
    const coverage = this.#coverage;
    const headStated = this.#headStated;
    const { position } = source.decoder;
    const outputBytes = await outputs.flush();
    const userLogBytes = (await userLog?.flush()) ?? 0;
    const checkpoint = takeCheckpoint(
      { ...state, coverage, headStated },
      {
        position,
        journalTaken: journal.taken,
        source: source.snapshot(),
        outputBytes,
        leftOut: outputs.leftOut,
        userLogBytes,
      },
    );
    const { stderrBytes } = source;
    const save = async () => {
      await outputs.sync();
      await folder.writeCheckpoint(checkpoint);
      await spool.release(position);
      await this.#stderr?.release(stderrBytes);
    };
    this.#saving = save()
      .then(() => (this.#noRoom = undefined))
      .catch((error: unknown) => {
        // Nothing is released, and so the guest stands still before long. It is tried again.
        if (!isNoRoom(error)) this.#failure.fail(error);
        else this.#waitForRoom(describeError(error));
      })
      .finally(() => (this.#saving = undefined));
  }

  #waitForRoom(problem: string): void {
    if (problem !== this.#noRoom) this.#parts.notice(`${problem}: tried again until there is room`);
    this.#noRoom = problem;
  }

  async #end(): Promise<RecordingEnd> {
    const { outputs } = this.#parts;
    await this.#saving;
    this.#throwFailure();
    const coverage = this.#statement('end');
    await this.#write(coverage);
    const { counters } = this;
    const complete =
      counters.lossEvents === 0 &&
      counters.damagedLines === 0 &&
      isTrapped(coverage.statement.ranges, this.#parts.state.attribution.devices.selected);
    await this.#write({ kind: 'end', timeNs: this.lastTimeNs, complete, counters });
    await outputs.end();
    await this.#parts.userLog?.close();
    const { removed } = outputs;
    return { vm: this.#vmEnd, counters, coverage: coverage.statement, complete, removed };
  }
}
