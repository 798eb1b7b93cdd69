/**
 * The contract of a source: where the accesses of a recording come from. Each has a folder here, and
 * a line in `index.ts`; what records asks none of them who it is.
 */
import type { Notice } from '../../base/notice.ts';
import type { Attribution } from '../../attribution/attribution.ts';
import type { DeviceState } from '../../attribution/device-state.ts';
import type { LaunchPlan } from '../../machine/argv.ts';
import type { UserLog } from '../../machine/argv-user.ts';
import type { SeenOfQemu } from '../../machine/coverage.ts';
import type { Vm } from '../../machine/vm.ts';
import type { RecordingHeader } from '../../model/events.ts';
import type { SourcePosition } from '../../model/position.ts';
import type { Tables } from '../../model/tables.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { RawBatch } from '../../sources/raw-batch.ts';
import type { SpoolDecoder } from '../../sources/spool-decoder.ts';
import type { SessionFolder } from '../session/session-folder.ts';
import type { UserLogWriter } from '../session/user-log.ts';
import type { Spool } from '../spool/spool.ts';
import type { SpoolWriter } from '../spool/spool-writer.ts';

/** A source while a recording runs. */
export interface RecordingSource {
  readonly decoder: SpoolDecoder;
  /** Kept with the session, for `resume`: plain JSON. */
  readonly info: unknown;
  /** undefined: QEMU is gone, and nobody writes any more. */
  readonly writer: SpoolWriter | undefined;
  /** What it sees of the parts of passed-through devices that QEMU answers by itself. */
  readonly seen: SeenOfQemu;
  /** How far it has read QEMU's standard error, for good; Infinity: it does not. */
  readonly stderrBytes: number;
  /** What its writer finds no room for in the spool is missing: QEMU does not write it again. */
  readonly losesWhenFull: boolean;
  /** Rejects where the source itself has failed; never resolves. */
  readonly failure: Promise<never>;
  /** How far the spool may be read by who has read it up to `read`; undefined: to its end. */
  readLimit(read: SourcePosition): SourcePosition | undefined;
  /** Bytes were taken out of the spool; what belongs to them is there by now. */
  onRead(): void;
  /** The spool was at its end when it was read last. */
  onReadAll(): void;
  /** Fills in what the spool does not tell of accesses, before they are written. */
  complete(batch: RawBatch, tables: Tables): void;
  /** Resolves when what the guest has done until now is in the spool. */
  caughtUp(): Promise<void>;
  /** The recording is about to be taken off QEMU. */
  onEnding(): void;
  /** Takes the recording off a QEMU that goes on, which is then as it was. */
  detach(vm: Vm): Promise<void>;
  /** QEMU has ended, or is no longer recorded: resolves when all that was seen is in the spool. */
  finish(): Promise<void>;
  /** For the coverage statement: what cannot be seen, or was not. */
  notes(phase: 'head' | 'end', devices: readonly DeviceState[]): readonly string[];
  /** All that is needed to go on at the decoder's position, beside the spool: plain JSON. */
  snapshot(): unknown;
  /** Lets go of everything; may be called at any time, and more than once. */
  stop(): void;
}

/** What a user wants of a source. */
export interface SourceOptions {
  readonly selection: readonly string[];
  /** Program counters, from KVM's tracepoints. */
  readonly pc: boolean;
  /** Of a QEMU that is started: interrupts of passed-through devices, too. */
  readonly interrupts: boolean;
  readonly overflow: 'pause' | 'drop';
  /** Offset in configuration space at which a guest makes marks. */
  readonly markRegister?: number | undefined;
  readonly notice: Notice;
}

/** What a source is opened with. */
export interface SourceParts {
  readonly folder: SessionFolder;
  readonly spool: Spool;
  /** undefined: QEMU is gone. */
  readonly vm: Vm | undefined;
  /** We started QEMU. */
  readonly launched: boolean;
  readonly header: RecordingHeader;
  readonly attribution: Attribution;
  readonly overflow: 'pause' | 'drop';
  /** Where lines go that are the user's own. */
  readonly userLog: UserLogWriter | undefined;
  readonly notice: Notice;
}

/** A recording that a source has begun. */
export interface SourceBeginning {
  /** Where lines of QEMU's log go that are the user's; undefined: the log is not ours. */
  readonly userLog: UserLog | undefined;
  open(parts: SourceParts): Promise<RecordingSource>;
}

/** Session time 0: seconds since 1970, and nanoseconds within that second. */
export type Start = Pick<RecordingHeader, 'startSec' | 'startNs'>;

/** A QEMU that is to be started. */
export interface SourceLaunch {
  /** Its command line, with what the source needs on it. */
  plan(folder: SessionFolder, spoolDir: string): LaunchPlan;
  /** Called before it is started. */
  prepare(folder: SessionFolder): Promise<void>;
  /** It answers, and its guest has not run. Throws MmioError where the source is not at work. */
  begin(begun: {
    readonly qmp: QmpClient;
    readonly pid: number;
    readonly plan: LaunchPlan;
    readonly start: Start;
    readonly selected: readonly DeviceState[];
  }): Promise<SourceBeginning>;
  /** It is not recorded after all. */
  close(): void;
}

/** A QEMU that runs. */
export interface RunningQemu {
  readonly qmp: QmpClient;
  /** undefined: it runs out of our sight, on another host or in another PID namespace. */
  readonly pid: number | undefined;
  /** Empty where it is not known. */
  readonly argv: readonly string[];
  readonly vcpus: ReadonlyMap<number, number>;
  readonly selected: readonly DeviceState[];
}

export interface SourceAttach {
  readonly clock: RecordingHeader['clock'];
  /** What `giveUp` wants to know of a recording whose recorder is killed before it has begun. */
  readonly info: unknown;
  /** QEMU itself writes into the spool, and has to get there. */
  readonly qemuWrites: boolean;
  /** Throws MmioError; QEMU is then as it was. */
  begin(begun: {
    readonly vm: Vm;
    readonly spool: Spool;
    readonly start: Start;
  }): Promise<SourceBeginning>;
  /** Puts QEMU back as it was: it is not recorded after all. */
  undo(): Promise<void>;
}

export interface GiveUpOptions {
  readonly spoolDir: string;
  readonly notice: Notice;
}

/** How recordings from a source begin. */
export interface SourceKind {
  readonly header: RecordingHeader['source'];
  /** Of a QEMU that we start. */
  readonly clock: RecordingHeader['clock'];
  /** Throws MmioError where this machine, or this QEMU, cannot; nothing is touched by it. */
  launch(argv: readonly string[], options: SourceOptions): Promise<SourceLaunch>;
  /** Throws MmioError where this machine cannot; called before anything else. */
  requireAttachable(address: string, options: SourceOptions): void;
  attach(qemu: RunningQemu, options: SourceOptions): Promise<SourceAttach>;
  /**
   * Puts a QEMU that was attached to back as it was: the recorder was killed before the recording
   * had begun. Throws MmioError.
   *
   * @param info that of `SourceAttach`
   */
  giveUp(vm: Vm, info: unknown, options: GiveUpOptions): Promise<void>;
  /**
   * Opens it for a recording that is resumed, whose spool stands at the checkpoint's position.
   * Throws MmioError `damaged` where `info` or `state` are not what they should be.
   *
   * @param state what `snapshot` gave
   */
  resume(parts: SourceParts, info: unknown, state: unknown): Promise<RecordingSource>;
}
