/**
 * Puts the accesses of the vCPUs and the lines of QEMU's log into one order, by time. What one vCPU
 * did, and the log, stay in their own order whatever the clock does.
 */
import { logFrame } from '../../../sources/plugin/frames.ts';
import type { SourcePosition } from '../../../model/position.ts';
import { RECORD_BYTES, RecordField, WireType, message } from '../../../sources/plugin/wire.ts';

const TWO_32 = 2 ** 32;

/** A line of QEMU's log, newline included. */
export interface LogLine {
  /** Nanoseconds since 1970 over 2^32, and the rest: as a record has them. */
  readonly hi: number;
  readonly lo: number;
  readonly bytes: Uint8Array;
  /** Where the log goes on behind it. */
  readonly next: SourcePosition;
}

/** Records of one vCPU, of which those from `at` on are left. */
interface Run {
  readonly bytes: Buffer;
  at: number;
}

export interface Moment {
  readonly hi: number;
  readonly lo: number;
}

export const END_OF_TIME: Moment = { hi: TWO_32, lo: 0 };

function isAfter(bytes: Buffer, record: number, { hi, lo }: Moment): boolean {
  const high = bytes.readUInt32LE(record + RecordField.timeNs + 4);
  return high > hi || (high === hi && bytes.readUInt32LE(record + RecordField.timeNs) > lo);
}

export class Merge {
  /** By vCPU, in order. */
  readonly #runs: Run[][] = [];
  readonly #lines: LogLine[] = [];

  /** @param bytes whole records of one vCPU; kept */
  addRecords(bytes: Buffer): void {
    if (bytes.length === 0) return;
    const vcpu = bytes.readUInt16LE(RecordField.vcpu);
    (this.#runs[vcpu] ??= []).push({ bytes, at: 0 });
  }

  addLines(lines: readonly LogLine[]): void {
    for (const line of lines) this.#lines.push(line);
  }

  /** Frames of all that happened until a moment, in order. */
  take(until: Moment): Buffer[] {
    const out: Buffer[] = [];
    let records: Buffer[] = [];
    let bytes = 0;
    const endRecords = () => {
      if (bytes > 0) out.push(message(WireType.records, Buffer.concat(records)));
      records = [];
      bytes = 0;
    };
    for (;;) {
      const [line] = this.#lines;
      const lineIsDue = line !== undefined && !isLater(line, until);
      const piece = this.#earliest(lineIsDue ? before(line) : until);
      if (piece !== undefined) {
        records.push(piece);
        bytes += piece.length;
        // A frame is read as a whole.
        if (bytes >= MAX_FRAME_BYTES) endRecords();
      } else if (lineIsDue) {
        endRecords();
        out.push(this.#takeLines(until));
      } else {
        endRecords();
        return out;
      }
    }
  }

  /** The next records, of one vCPU, that are not after `until` nor after another vCPU's next. */
  #earliest(until: Moment): Buffer | undefined {
    let first: { run: Run; runs: Run[]; time: Moment } | undefined;
    let limit = until;
    for (const runs of this.#runs) {
      const run = runs?.[0];
      if (run === undefined || isAfter(run.bytes, run.at, until)) continue;
      const time = timeOf(run.bytes, run.at);
      if (first === undefined) first = { run, runs, time };
      else if (isLater(first.time, time)) {
        limit = first.time;
        first = { run, runs, time };
      } else if (isLater(limit, time)) limit = time;
    }
    if (first === undefined) return undefined;
    const { run, runs } = first;
    const from = run.at;
    const end = run.bytes.length;
    // Nearly always all of it goes: one vCPU is busy, or there is but one.
    if (!isAfter(run.bytes, end - RECORD_BYTES, limit)) run.at = end;
    else {
      do run.at += RECORD_BYTES;
      while (run.at < end && !isAfter(run.bytes, run.at, limit));
    }
    if (run.at === end) runs.shift();
    return run.bytes.subarray(from, run.at);
  }

  /** The lines that come before any record. */
  #takeLines(until: Moment): Buffer {
    const taken: LogLine[] = [];
    for (;;) {
      const [line] = this.#lines;
      if (line === undefined || isLater(line, until)) break;
      const waits = this.#runs.some((runs) => {
        const run = runs?.[0];
        return run !== undefined && !isAfter(run.bytes, run.at, before(line));
      });
      if (waits && taken.length > 0) break;
      taken.push(line);
      this.#lines.shift();
    }
    const next = taken.at(-1)?.next ?? { segment: 0, offset: 0 };
    return logFrame(next, Buffer.concat(taken.map(({ bytes }) => bytes)));
  }
}

const MAX_FRAME_BYTES = 4096 * RECORD_BYTES;

function timeOf(bytes: Buffer, record: number): Moment {
  return {
    hi: bytes.readUInt32LE(record + RecordField.timeNs + 4),
    lo: bytes.readUInt32LE(record + RecordField.timeNs),
  };
}

export function isLater(a: Moment, b: Moment): boolean {
  return a.hi > b.hi || (a.hi === b.hi && a.lo > b.lo);
}

/** A line's time is cut off at the microsecond: of a record of the same one it is the earlier. */
function before({ hi, lo }: Moment): Moment {
  return lo === 0 ? { hi: hi - 1, lo: TWO_32 - 1 } : { hi, lo: lo - 1 };
}
