/**
 * The spool of a recording from the plugin: the plugin's messages RECORDS and FAREWELL as they came,
 * and between them the lines of QEMU's log, all in the order of their times. The recorder writes it.
 */
import type { SourcePosition } from '../../model/position.ts';
import { HEAD_BYTES, message } from './wire.ts';

export const FrameKind = {
  /** u32 segment of QEMU's log, u32 0, f64 where in it the next line begins; then whole lines. */
  log: 0x10001,
  /** The plugin went, and said no farewell. */
  gone: 0x10002,
} as const;

export const LOG_HEAD_BYTES = 16;

export function logFrame(next: SourcePosition, lines: Uint8Array): Buffer {
  const body = Buffer.alloc(LOG_HEAD_BYTES + lines.length);
  body.writeUInt32LE(next.segment, 0);
  body.writeDoubleLE(next.offset, 8);
  body.set(lines, LOG_HEAD_BYTES);
  return message(FrameKind.log, body);
}

export function goneFrame(): Buffer {
  return message(FrameKind.gone, Buffer.alloc(0));
}

/** @param frame begins with its head */
export function logPositionOf(frame: Buffer): SourcePosition {
  return {
    segment: frame.readUInt32LE(HEAD_BYTES),
    offset: frame.readDoubleLE(HEAD_BYTES + 8),
  };
}
