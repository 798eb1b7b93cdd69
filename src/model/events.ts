import type { SourcePosition } from './position.ts';
import type { CoverageStatement } from './coverage.ts';
import type { Device, Mapping, Region } from './device.ts';

/** What every recording begins with. Plain data: it goes through JSON and protobuf. */
export interface RecordingHeader {
  /** `mmiobridge 0.1.0` */
  readonly tool: string;
  /** Where the accesses come from. */
  readonly source: 'qemu-log' | 'mmiotrace' | 'kvm' | 'plugin';
  /** Wall clock at session time 0: seconds since 1970, and nanoseconds within that second. */
  readonly startSec: number;
  readonly startNs: number;
  /** Added to session time, in seconds, where mmiotrace text is written; 0 for our recordings. */
  readonly textBaseSec: number;
  /** Whose clock: QEMU's own stamps (µs; the plugin's: ns), or the moment at which we read the line. */
  readonly clock: 'qemu' | 'poll' | 'kernel' | 'none';
  /** `7.2.22 (Debian …)`; empty if unknown. */
  readonly qemuVersion: string;
  /** QEMU's command line, if we know it. */
  readonly argv: readonly string[];
}

/** A PCIDEV line: a device as it stands now. The same `device.id` may come again, moved. */
export interface DeviceEvent {
  readonly kind: 'device';
  readonly timeNs: number;
  readonly device: Device;
}
/** Comes before the first access to, or mapping of, the region. */
export interface RegionEvent {
  readonly kind: 'region';
  readonly timeNs: number;
  readonly region: Region;
}
/** Comes just before the first access through the mapping. */
export interface MapEvent {
  readonly kind: 'map';
  readonly timeNs: number;
  readonly mapping: Mapping;
}
export interface UnmapEvent {
  readonly kind: 'unmap';
  readonly timeNs: number;
  readonly mapId: number;
}
/** A user's words. */
export interface MarkEvent {
  readonly kind: 'mark';
  readonly timeNs: number;
  readonly text: string;
}
/** The tool's own words: what a reader should know at this place. */
export interface NoticeEvent {
  readonly kind: 'notice';
  readonly timeNs: number;
  readonly text: string;
}
/** Accesses that happened and are not in the recording, at the place where they are missing. */
export interface LossEvent {
  readonly kind: 'loss';
  readonly timeNs: number;
  /** How many, or -1 where nobody can know. */
  readonly count: number;
  /** How long nothing was seen; 0 where that is not known. */
  readonly durationNs: number;
  readonly reason: string;
}
/** QEMU could not do an access: it stands next to the access, whose value is what the guest saw. */
export interface FailedEvent {
  readonly kind: 'failed';
  readonly timeNs: number;
  readonly write: boolean;
  /** `Region.id`. */
  readonly region: number;
  readonly offset: number;
  readonly width: number;
  /** Hexadecimal, with 0x. */
  readonly value: string;
  /** The system's words: `Input/output error`. */
  readonly reason: string;
}
export interface InterruptEvent {
  readonly kind: 'interrupt';
  readonly timeNs: number;
  readonly device: number;
  readonly type: 'intx' | 'msi' | 'msix';
  /** Vector; INTx: the pin, 0 for A. */
  readonly vector: number;
}
export interface ResetEvent {
  readonly kind: 'reset';
  readonly timeNs: number;
  readonly device: number;
}
/** The VM as a whole: QMP's run states and events, lower case (`running`, `paused`, `reset`, …). */
export interface VmStateEvent {
  readonly kind: 'vm-state';
  readonly timeNs: number;
  readonly state: string;
}
export interface CoverageEvent {
  readonly kind: 'coverage';
  readonly timeNs: number;
  readonly statement: CoverageStatement;
}
/** Input that is not what its format says; kept, with its place, and stepped over. */
export interface DamageEvent {
  readonly kind: 'damage';
  readonly timeNs: number;
  readonly position: SourcePosition;
  readonly reason: string;
  /** The first bytes of it, at most 200, anything not printable ASCII as `\xNN`. */
  readonly evidence: string;
}
/** A line of an mmiotrace log that means nothing to us (`LSPCI …`), kept as it is, without LF. */
export interface LineEvent {
  readonly kind: 'line';
  readonly timeNs: number;
  readonly text: string;
}
/** The last event of a recording that was ended, as opposed to cut off. */
export interface EndEvent {
  readonly kind: 'end';
  readonly timeNs: number;
  readonly complete: boolean;
  readonly counters: Counters;
}

export interface Counters {
  readonly reads: number;
  readonly writes: number;
  /** Accesses known to be missing; those of unknown number are not in it. */
  readonly lost: number;
  /** How often something went missing, known number or not. */
  readonly lossEvents: number;
  readonly damagedLines: number;
  /** Trace lines that are not ours to record, by event name. */
  readonly otherLines: Readonly<Record<string, number>>;
}

export type RecordingEvent =
  | DeviceEvent
  | RegionEvent
  | MapEvent
  | UnmapEvent
  | MarkEvent
  | NoticeEvent
  | LossEvent
  | FailedEvent
  | InterruptEvent
  | ResetEvent
  | VmStateEvent
  | CoverageEvent
  | DamageEvent
  | LineEvent
  | EndEvent;
