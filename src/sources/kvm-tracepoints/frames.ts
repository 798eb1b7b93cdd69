/**
 * Pages of the kernel's ring buffer in the spool: frames of a head and a body, little-endian.
 *
 * Head: the letters KVMP, u16 kind, u16 CPU, u32 length of the body. A round's frames stand
 * together: the pages that it brought, then its end.
 */

export const MAGIC = 0x504d564b;
export const HEAD_BYTES = 12;
/** No page of a ring buffer is longer. */
export const MAX_BODY_BYTES = 2 ** 20;

export const FrameKind = {
  /** A page, without what is behind its records. */
  page: 1,
  /** f64: when the round began, in nanoseconds since the base. */
  roundEnd: 2,
  /**
   * f64: how many records had been read out of the kernel when another recorder took over; -1 where
   * a new trace began. Whoever was killed may have read some and not written them down.
   */
  takenOver: 3,
} as const;

export function frame(kind: number, cpu: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES + body.length);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt16LE(kind, 4);
  bytes.writeUInt16LE(cpu, 6);
  bytes.writeUInt32LE(body.length, 8);
  bytes.set(body, HEAD_BYTES);
  return bytes;
}

export function numberFrame(kind: number, value: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeDoubleLE(value);
  return frame(kind, 0, body);
}
