/** What the page knows, as signals; what a person chooses, and what follows from it. */
import { hex } from '../base/format.ts';
import { computed, signal } from '@preact/signals';
import type { HistogramResult } from '../analysis/histogram.ts';
import type { ReadsAndWrites } from '../analysis/region-counts.ts';
import type { RegisterCount } from '../analysis/register-counts.ts';
import type { Span } from '../analysis/span.ts';
import type { CoverageStatement } from '../model/coverage.ts';
import type { MarkEvent, RecordingHeader } from '../model/events.ts';
import { Tables } from '../model/tables.ts';
import type { mmiobridge } from '../wire/generated/types.ts';

export interface Register {
  readonly region: number;
  readonly offset: number;
}

/** What a slot shows. */
export interface Shown {
  readonly rows: number;
  readonly seen: number;
  readonly caughtUp: boolean;
  readonly reads: number;
  readonly writes: number;
  readonly histogram: HistogramResult;
  readonly registers: readonly RegisterCount[];
  readonly registerCount: number;
  /** Accesses to registers beyond those that are told apart. */
  readonly others: ReadsAndWrites;
  /** By region: all its traffic, and the number of its registers that are told apart. */
  readonly regions: ReadonlyMap<number, ReadsAndWrites & { readonly registers: number }>;
  /** Devices and regions that the filter names and that are not there, for people. */
  readonly unknownNames: readonly string[];
}

/** Where something is missing. */
export interface Hole {
  readonly damage: boolean;
  readonly fromNs: number;
  readonly toNs: number;
  /** Number of the first access behind it. */
  readonly row: number;
  /** -1: nobody knows. */
  readonly count: number;
  readonly reason: string;
}

/** `ended`: whoever served has said that it ends. */
export type Connection = 'connecting' | 'open' | 'lost' | 'ended' | 'refused';

/** What `/recordings` tells: see server/recordings.ts. */
export interface Listed {
  readonly id: string;
  readonly file: string;
  readonly name: string;
  readonly state: 'recording' | 'waiting' | 'finished';
  readonly bytes: number;
  readonly changedMs: number;
}

/** What there is to look at, and the one that is looked at. */
export const recordings = signal<readonly Listed[] | undefined>(undefined);
export const chosen = signal<string | undefined>(undefined);
export const connection = signal<Connection>('connecting');
export const summary = signal<mmiobridge.v1.Summary.$Properties>({});
export const header = signal<RecordingHeader | undefined>(undefined);
/** Devices, regions and mappings; replaced by itself when it has changed. */
export const tables = signal({ tables: new Tables() });
export const marks = signal<readonly MarkEvent[]>([]);
export const holes = signal<readonly Hole[]>([]);
export const coverage = signal<CoverageStatement | undefined>(undefined);
/** Events that are rare and worth a line: resets, states of the VM, accesses that failed. */
export const notices = signal<readonly { readonly timeNs: number; readonly text: string }[]>([]);

export const filter = signal('');
export const filterError = signal<{ message: string; at: number; hint: string } | undefined>(
  undefined,
);
export const span = signal<Span | undefined>(undefined);
/** What the timeline shows; undefined: all. */
export const zoom = signal<Span | undefined>(undefined);
export const register = signal<Register | undefined>(undefined);

export const list = signal<Shown | undefined>(undefined);
export const timeline = signal<Shown | undefined>(undefined);
export const map = signal<Shown | undefined>(undefined);
/** Grows when the list shows something else. */
export const listEpoch = signal(0);

/** The epoch that `list` is of. */
export const listFor = signal(0);

/** A word about what just happened, for a moment. */
export const toast = signal<{ readonly text: string; readonly bad: boolean } | undefined>(
  undefined,
);
/** How much the page missed because it did not keep up. */
export const missed = signal<{ readonly accesses: number } | undefined>(undefined);
export const dialog = signal<'help' | 'coverage' | 'mark' | 'download' | 'recordings' | undefined>(
  undefined,
);

/** Not all of the file has been looked at yet: what is not there may still come. */
export const reading = computed(() => (summary.value.bytesSeen ?? 0) < (summary.value.bytes ?? 0));
export const lastTimeNs = computed(() => Math.max(1, summary.value.lastTimeNs ?? 0));

let toastTimer = 0;
export function say(text: string, bad = false): void {
  toast.value = { text, bad };
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.value = undefined), bad ? 6000 : 3000);
}

export function registerName({ region, offset }: Register): string {
  const known = tables.value.tables;
  const { name, device } = known.regions[region] ?? { name: `region ${region}`, device: -1 };
  const several = known.devices.filter(Boolean).length > 1;
  const owner = several && device >= 0 ? `${known.deviceName(device)} ` : '';
  return `${owner}${name}+${hex(offset)}`;
}

export function sameRegister(a: Register | undefined, b: Register | undefined): boolean {
  return a?.region === b?.region && a?.offset === b?.offset;
}

/** The filter for one register, in the filter language. */
export function registerFilter({ region, offset }: Register): string {
  const known = tables.value.tables;
  const { name = '', device = -1 } = known.regions[region] ?? {};
  const several = known.devices.filter(Boolean).length > 1;
  const owner = several && device >= 0 ? `device="${known.deviceName(device)}" ` : '';
  return /^(?:BAR\d|ROM|config)$/i.test(name)
    ? `${owner}${name.toLowerCase()}+${hex(offset)}`
    : `${owner}region="${name}" offset=${hex(offset)}`;
}

export function forget(): void {
  summary.value = {};
  header.value = undefined;
  tables.value = { tables: new Tables() };
  marks.value = [];
  holes.value = [];
  coverage.value = undefined;
  notices.value = [];
  list.value = undefined;
  timeline.value = undefined;
  map.value = undefined;
  listEpoch.value++;
}
