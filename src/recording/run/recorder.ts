/**
 * The loop of a running recording: spool, decoder, attribution, outputs; checkpoints on the way.
 *
 * Bytes of the spool and entries of the journal are its only inputs, and a checkpoint holds all
 * state between two of them. So the outputs depend on nothing else, and a recorder that is killed
 * goes on from the checkpoint as if it had never stopped.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Vm, VmEnd } from '../../machine/vm.ts';
import type { SourcePosition } from '../../model/position.ts';
import type { CoverageRange, CoverageStatement } from '../../model/coverage.ts';
import type { Counters, RecordingEvent, RecordingHeader } from '../../model/events.ts';
import type { StreamItem } from '../../model/stream.ts';
import { KvmDecoder } from '../../sources/kvm-tracepoints/decoder.ts';
import { PluginDecoder } from '../../sources/plugin/decoder.ts';
import type { QemuLogDecoder } from '../../sources/qemu-log/decoder.ts';
import { RawBatch } from '../../sources/raw-batch.ts';
import type { RawEvent } from '../../sources/raw-events.ts';
import { BAR_POLL_MS } from '../source/kvm/bar-poll.ts';
import type { Journal } from '../session/journal.ts';
import type { KvmSource } from '../source/kvm/source.ts';
import type { OutputSet } from '../../sinks/output-set.ts';
import type { PcTap } from '../source/kvm/pc-tap.ts';
import type { PluginWriter } from '../source/plugin/writer.ts';
import type { Checkpoint, SessionFolder } from '../session/session-folder.ts';
import type { Attribution } from '../../attribution/attribution.ts';
import type { Spool } from '../spool/spool.ts';
import { countersOf } from '../../analysis/totals.ts';
import type { RecordingCounts } from '../../analysis/recording-counts.ts';
import type { UserLogWriter } from './user-log.ts';

const POLL_MS = 10;
/** A read that brings this much says that we are behind: the next follows at once. */
const BEHIND_BYTES = 512 * 1024;
const CHECKPOINT_MS = 1000;
/** How long QEMU is given to close a segment, where we cannot see whether it has. */
const CLOSE_GRACE_MS = 500;

export interface RecorderParts {
  readonly dir: SessionFolder;
  readonly header: RecordingHeader;
  readonly spool: Spool;
  readonly journal: Journal;
  readonly decoder: SpoolDecoder;
  readonly attribution: Attribution;
  readonly outputs: OutputSet;
  readonly counts: RecordingCounts;
  /** undefined: QEMU is gone, and what it left is all there is. */
  readonly vm: Vm | undefined;
  /** Asks QMP again what devices there are and where; not called when there is no VM. */
  readonly refreshDevices: () => Promise<void>;
  /** Asks QEMU how the selected devices are mapped now: aliases, and what is trapped. */
  readonly lookAtMemory: () => Promise<readonly CoverageRange[]>;
  readonly coverage: readonly CoverageRange[];
  /** What else is known of what cannot be seen. */
  readonly notes: readonly string[];
  readonly userLog: UserLogWriter | undefined;
  /** Knows the program counters, where they are wanted. */
  readonly pc: PcTap | undefined;
  /** Where the accesses come from KVM's tracepoints, and the spool is written by us. */
  readonly kvm: KvmSource | undefined;
  /** Where they come from the QEMU plugin, and the spool is written by us. */
  readonly plugin: PluginWriter | undefined;
}

/** What reads the spool. */
export type SpoolDecoder = QemuLogDecoder | KvmDecoder | PluginDecoder;

export interface RecordingEnd {
  readonly vm: VmEnd | undefined;
  readonly counters: Counters;
  readonly coverage: CoverageStatement;
  /** Nothing is missing, as far as anyone can tell. */
  readonly complete: boolean;
}

const KVM_NOTES = [
  "recorded from KVM's tracepoints: what QEMU or the kernel's short cuts (ioeventfd) did is not in it",
  `QMP was asked every ${BAR_POLL_MS} ms where the BARs are: what came and went in between is not known`,
];

const PLUGIN_NOTES = [
  'recorded by a QEMU plugin: what devices did to each other (DMA to a BAR), and accesses to I/O ports, are not in it',
];

export class Recorder {
  readonly #parts: RecorderParts;
  #coverage: readonly CoverageRange[];
  #mapSeen = false;
  #headStated = false;
  #vmEnd: VmEnd | undefined;
  /** Nothing more will be written to the spool. */
  #sourceEnded: boolean;
  /** A segment has been read to its end: the next checkpoint makes room for another. */
  #checkpointDue = false;
  /** The checkpoint that is being made safe. */
  #saving: Promise<void> | undefined;
  #lastCheckpointMs = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(parts: RecorderParts) {
    this.#parts = parts;
    this.#coverage = parts.coverage;
    this.#sourceEnded = parts.vm === undefined;
    // A recording that is gone on with has said it behind its first MAP: no checkpoint is between.
    this.#headStated = parts.attribution.snapshot().nextMapId > 1;
    void parts.vm?.ended.then((end) => {
      this.#vmEnd = end;
      this.sourceEnded();
    });
  }

  /** QEMU writes no more into the spool: it has been told to log elsewhere, or is gone. */
  sourceEnded(): void {
    this.#parts.kvm?.poll.stop();
    this.#parts.kvm?.writer?.finish();
    const { plugin } = this.#parts;
    if (plugin === undefined) this.#sourceEnded = true;
    else {
      void plugin
        .finish()
        .catch((error: unknown) => void (this.#failure ??= { error }))
        .finally(() => (this.#sourceEnded = true));
    }
  }

  get counters(): Counters {
    const { attribution, counts, decoder } = this.#parts;
    return countersOf(counts.totals, attribution.otherLines(decoder.otherLines));
  }

  get lastTimeNs(): number {
    return this.#parts.attribution.lastTimeNs;
  }

  /** Makes the beginning safe: a recorder that is killed from here on can be gone on with. */
  async begin(): Promise<void> {
    await this.#checkpoint();
    await this.#saving;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Runs until the source has ended and all that it wrote is in the outputs. */
  async run(): Promise<RecordingEnd> {
    const { spool, journal, decoder } = this.#parts;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.error;
      const ended = this.#sourceEnded;
      const bytesRead = await this.#readOnce();
      let taken = false;
      for (let entry; (entry = journal.take(spool.position)) !== undefined;) {
        taken = true;
        this.#parts.attribution.note(entry.event);
        await this.#drainSession();
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
    decoder.finish();
    await this.#drain();
    return this.#end();
  }

  /** Reads and processes what is there, up to the next journal entry; how many bytes. */
  async #readOnce(): Promise<number> {
    const { spool, decoder, attribution, pc } = this.#parts;
    const until = this.#readUntil();
    const { bytes } = await spool.read(until);
    if (bytes.length === 0) {
      if (until === undefined && !spool.behind) pc?.logAtEnd();
      return 0;
    }
    pc?.logRead();
    attribution.pollTimeNs = this.nowNs();
    decoder.feed(bytes);
    await this.#drain();
    return bytes.length;
  }

  /** The next journal entry, or as far as it is known where the BARs were. */
  #readUntil(): SourcePosition | undefined {
    const { journal, kvm, spool } = this.#parts;
    const entry = journal.nextAt;
    const known = kvm?.poll.limit(spool.position);
    if (entry === undefined || known === undefined) return entry ?? known;
    const entryFirst =
      entry.segment < known.segment ||
      (entry.segment === known.segment && entry.offset <= known.offset);
    return entryFirst ? entry : known;
  }

  /** There may be more in this segment, and it is not yet known where the BARs were. */
  #mayNotRead(): boolean {
    const { kvm, spool } = this.#parts;
    const known = kvm?.poll.limit(spool.position);
    return known !== undefined && known.segment <= spool.position.segment;
  }

  /** Session time by our own clock. */
  nowNs(): number {
    const { startSec, startNs } = this.#parts.header;
    const nowMs = performance.timeOrigin + performance.now();
    const sec = Math.floor(nowMs / 1000);
    const ns = Math.round((nowMs - sec * 1000) * 1e6);
    return (sec - startSec) * 1e9 + ns - startNs;
  }

  async #drain(): Promise<void> {
    const { decoder, attribution } = this.#parts;
    for (let item; (item = decoder.next()) !== undefined;) {
      if (this.#needsDevices(item)) await this.#parts.refreshDevices();
      if (!('kind' in item) && attribution.devices.consumeMoved()) await this.#lookAtMemory();
      attribution.take(item);
      await this.#drainSession();
    }
  }

  /** A mapping of a function that QMP has not told of: hot-plugged, or behind a bridge. */
  #needsDevices(item: object): boolean {
    if (!('kind' in item) || this.#parts.vm === undefined || this.#sourceEnded) return false;
    const event = item as RawEvent;
    return event.kind === 'mapping' && this.#parts.attribution.devices.isUnknown(event);
  }

  async #drainSession(): Promise<void> {
    for (let item; (item = this.#parts.attribution.next()) !== undefined;) await this.#write(item);
  }

  async #write(item: StreamItem): Promise<void> {
    const { counts, pc } = this.#parts;
    if (item instanceof RawBatch) pc?.fill(item, counts.tables);
    counts.write(item);
    if ('kind' in item && item.kind === 'map') this.#mapSeen = true;
    const written = this.#parts.outputs.write(item);
    if (written !== undefined) await written;
  }

  /** A BAR has come to a new place: QEMU can say how it is mapped there. */
  async #lookAtMemory(): Promise<void> {
    if (this.#sourceEnded) return;
    const ranges = await this.#parts.lookAtMemory().catch(() => []);
    this.#coverage = mergeCoverage(this.#coverage, ranges);
  }

  /** After the first MAP: what is known by now of what will be seen. */
  async #stateHead(): Promise<void> {
    this.#headStated = true;
    await this.#lookAtMemory();
    await this.#write(this.#statement('head'));
  }

  #statement(phase: 'head' | 'end'): Extract<RecordingEvent, { kind: 'coverage' }> {
    const { decoder, attribution } = this.#parts;
    const notes = [...this.#parts.notes];
    if (decoder.unstampedLines > 0 && decoder.stampedLines === 0) {
      notes.push(
        'QEMU runs without -msg timestamp=on: times are those of the poll, about 10 ms apart',
      );
    }
    const emulated = attribution.devices.selected.filter(
      (state) => state.device.hostAddress === '',
    );
    const isModels = !(decoder instanceof KvmDecoder || decoder instanceof PluginDecoder);
    for (const { device } of isModels ? emulated : []) {
      notes.push(
        `${device.name} is emulated: accesses are those that QEMU's model was asked, which may split or widen the guest's`,
      );
    }
    if (decoder instanceof KvmDecoder) notes.push(...KVM_NOTES);
    if (decoder instanceof PluginDecoder) notes.push(...PLUGIN_NOTES);
    if (phase === 'end' && this.#parts.pc !== undefined) notes.push(...this.#parts.pc.notes);
    const statement = { phase, ranges: this.#coverage, notes };
    return { kind: 'coverage', timeNs: attribution.lastTimeNs, statement };
  }

  /** The segment has been read to its end and QEMU logs into a newer one: is anyone still in it? */
  async #leaveSegment(): Promise<void> {
    const { spool, vm, decoder, kvm, plugin } = this.#parts;
    const path = spool.readingPath;
    const deadline = performance.now() + CLOSE_GRACE_MS;
    while (!this.#sourceEnded && vm !== undefined) {
      const open = (kvm?.writer ?? plugin ?? vm).holdsOpen(path);
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
    const { dir, outputs, spool, userLog } = this.#parts;
    this.#lastCheckpointMs = performance.now();
    if (this.#saving !== undefined) return;
    this.#checkpointDue = false;
    const checkpoint = {
      ...this.#state(),
      outputBytes: await outputs.flush(),
      userLogBytes: (await userLog?.flush()) ?? 0,
    };
    const save = async () => {
      await outputs.sync();
      await dir.writeCheckpoint(checkpoint);
      await spool.release(checkpoint.position);
    };
    this.#saving = save()
      .catch((error: unknown) => void (this.#failure ??= { error }))
      .finally(() => (this.#saving = undefined));
  }

  #state(): Omit<Checkpoint, 'outputBytes' | 'userLogBytes'> {
    const { decoder, journal, attribution, counts, pc } = this.#parts;
    return structuredClone({
      position: decoder.position,
      journalTaken: journal.taken,
      attribution: attribution.snapshot(),
      counts: counts.snapshot(),
      otherLines: [...decoder.otherLines],
      stampedLines: decoder.stampedLines,
      unstampedLines: decoder.unstampedLines,
      coverage: this.#coverage,
      notes: this.#parts.notes,
      ...(pc && { pc: pc.counts }),
      ...(decoder instanceof KvmDecoder && { kvm: decoder.snapshot() }),
      ...(decoder instanceof PluginDecoder && { plugin: decoder.snapshot() }),
    });
  }

  async #end(): Promise<RecordingEnd> {
    const { outputs } = this.#parts;
    await this.#saving;
    if (this.#failure !== undefined) throw this.#failure.error;
    const coverage = this.#statement('end');
    await this.#write(coverage);
    const { counters } = this;
    const complete =
      counters.lossEvents === 0 &&
      counters.damagedLines === 0 &&
      this.#coverage.every(({ state }) => state === 'trapped' || state === 'unknown');
    await this.#write({ kind: 'end', timeNs: this.lastTimeNs, complete, counters });
    await outputs.end();
    await this.#parts.userLog?.close();
    return { vm: this.#vmEnd, counters, coverage: coverage.statement, complete };
  }
}

/**
 * What was once seen of a BAR stays: one that is unmapped, or moved, was trapped then all the same.
 * Only ranges of which nothing was known give way.
 */
function mergeCoverage(
  before: readonly CoverageRange[],
  now: readonly CoverageRange[],
): readonly CoverageRange[] {
  const keyOf = (range: CoverageRange) => `${range.device} ${range.region}`;
  const told = new Set(now.filter((range) => range.state !== 'unknown').map(keyOf));
  const known = before.filter((range) => range.state !== 'unknown' && !told.has(keyOf(range)));
  const kept = new Set(known.map(keyOf));
  return [...known, ...now.filter((range) => !kept.has(keyOf(range)))];
}
