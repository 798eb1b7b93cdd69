/**
 * What the QEMU plugin and the recorder say to each other: the twin of `qemu-scripts/plugin/wire.h`,
 * which tells the order of the messages. All numbers are little-endian.
 */
import { MmioError } from '../../base/errors.ts';
import { escapeBytes } from '../../base/escape.ts';

export const WIRE_VERSION = 1;
export const HEAD_BYTES = 8;
export const RECORD_BYTES = 48;
/** A longer message is not one of the plugin's. */
export const MAX_BODY_BYTES = 1024 * 1024;
const MAGIC = 'MMIOPLUG';
const HELLO_BYTES = 40;

export const WireType = {
  hello: 1,
  records: 2,
  tick: 3,
  rangesTaken: 4,
  farewell: 5,
  welcome: 16,
  refused: 17,
  ranges: 18,
} as const;

/** Where in a record its fields are; a pair of u32, low half first, is a u64. */
export const RecordField = {
  timeNs: 0,
  pc: 8,
  gpa: 16,
  valueLo: 24,
  valueHi: 32,
  number: 40,
  vcpu: 44,
  width: 46,
  flags: 47,
} as const;

export const RecordFlag = { write: 1, part: 2 } as const;

export interface Hello {
  readonly version: number;
  readonly recordBytes: number;
  /** QEMU's name of it, such as `x86_64`. */
  readonly target: string;
  readonly pid: number;
  readonly maxVcpus: number;
}

/** Throws MmioError `protocol` where it is none. */
export function readHello(body: Buffer): Hello {
  if (body.length !== HELLO_BYTES || body.toString('latin1', 0, 8) !== MAGIC) {
    throw new MmioError('protocol', 'what connected is not the QEMU plugin', {
      evidence: escapeBytes(body.subarray(0, 64), 200),
    });
  }
  const zero = body.indexOf(0, 16);
  return {
    version: body.readUInt32LE(8),
    recordBytes: body.readUInt32LE(12),
    target: body.toString('latin1', 16, Math.min(zero < 0 ? 32 : zero, 32)),
    pid: body.readUInt32LE(32),
    maxVcpus: body.readUInt32LE(36),
  };
}

export function message(type: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES + body.length);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(body.length, 4);
  bytes.set(body, HEAD_BYTES);
  return bytes;
}

/** @param overflow what a vCPU does whose buffer is full: it waits, or goes on and is counted */
export function welcome(overflow: 'wait' | 'count', version = WIRE_VERSION): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt32LE(version, 0);
  body.writeUInt32LE(overflow === 'count' ? 1 : 0, 4);
  return message(WireType.welcome, body);
}

export function refused(why: string): Buffer {
  return message(WireType.refused, Buffer.from(why, 'utf8'));
}

/** Guest-physical addresses, the last one included. */
export interface GuestRange {
  readonly start: bigint;
  readonly last: bigint;
}

/**
 * @param serial comes back in RANGES_TAKEN
 * @param recording false: accesses are numbered and not sent, so that their loss shows
 */
export function ranges(serial: number, recording: boolean, list: readonly GuestRange[]): Buffer {
  const body = Buffer.alloc(16 + 16 * list.length);
  body.writeUInt32LE(serial, 0);
  body.writeUInt32LE(recording ? 1 : 0, 4);
  body.writeUInt32LE(list.length, 8);
  for (const [index, { start, last }] of list.entries()) {
    body.writeBigUInt64LE(start, 16 + 16 * index);
    body.writeBigUInt64LE(last, 24 + 16 * index);
  }
  return message(WireType.ranges, body);
}
