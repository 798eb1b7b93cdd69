import './little-endian.ts';

/** How many accesses one frame carries at most; a larger batch becomes several frames. */
export const MAX_ROWS = 65536;

/** How many distinct pairs of region and mapping one frame can name: the index is a byte. */
export const MAX_TARGETS = 256;

/** How far apart in time the accesses of one frame may lie: the distance is a u32. */
export const MAX_SPAN_NS = 0xffff_ffff;

export const MAX_OP = 2;
export const MAX_SPACE = 2;

/** Width in bytes by width code. */
export const WIDTHS: readonly number[] = [0, 1, 2, 4, 8, 16];

/** Fields of `AccessBatch` in proto/mmiobridge.proto. */
export const Field = {
  count: 1,
  baseTimeNs: 2,
  timeDelta: 3,
  kind: 4,
  targetRegion: 5,
  targetMapId: 6,
  target: 7,
  offsetLow: 8,
  offsetHigh: 9,
  valueLow: 10,
  valueHigh: 11,
  cpuColumn: 12,
  cpu: 13,
  pcLow: 14,
  pcHigh: 15,
  position: 16,
} as const;

/** The bytes of the elements `from` to `to`, as they lie in memory; nothing is copied. */
export function bytesOf(
  array: Uint8Array | Uint16Array | Int16Array | Uint32Array | Float64Array,
  from: number,
  to: number,
): Uint8Array {
  const size = array.BYTES_PER_ELEMENT;
  return new Uint8Array(array.buffer, array.byteOffset + from * size, (to - from) * size);
}
