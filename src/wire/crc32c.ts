import './little-endian.ts';

// "Slicing by 16" after Kounavis and Berry: table k holds what a byte does to the remainder k bytes
// further on, so that 16 bytes are folded in with independent look-ups.
const SLICES = 16;
/** Castagnoli's polynomial, bits reversed: RFC 3720, appendix B.4. */
const POLYNOMIAL = 0x82f63b78;

const TABLE = new Int32Array(SLICES * 256);
for (let byte = 0; byte < 256; byte++) {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) {
    remainder = remainder & 1 ? (remainder >>> 1) ^ POLYNOMIAL : remainder >>> 1;
  }
  TABLE[byte] = remainder;
}
for (let at = 256; at < TABLE.length; at++) {
  const before = TABLE[at - 256]!;
  TABLE[at] = (before >>> 8) ^ TABLE[before & 255]!;
}

/** CRC-32C of `bytes[start, end)`, as an unsigned 32-bit integer. */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = -1;
  let at = start;
  // PERF: words are read through a view, which has to be aligned.
  while (at < end && ((bytes.byteOffset + at) & 3) !== 0) {
    crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[at++]!) & 255]!;
  }
  const blocks = (end - at) >>> 4;
  if (blocks > 0) {
    crc = foldBlocks(crc, new Int32Array(bytes.buffer, bytes.byteOffset + at, blocks * 4));
    at += blocks * 16;
  }
  while (at < end) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[at++]!) & 255]!;
  return ~crc >>> 0;
}

function foldBlocks(seed: number, words: Int32Array): number {
  let crc = seed;
  for (let i = 0; i + 4 <= words.length; i += 4) {
    const a = words[i]! ^ crc;
    const b = words[i + 1]!;
    const c = words[i + 2]!;
    const d = words[i + 3]!;
    crc =
      TABLE[0xf00 + (a & 255)]! ^
      TABLE[0xe00 + ((a >>> 8) & 255)]! ^
      TABLE[0xd00 + ((a >>> 16) & 255)]! ^
      TABLE[0xc00 + (a >>> 24)]! ^
      TABLE[0xb00 + (b & 255)]! ^
      TABLE[0xa00 + ((b >>> 8) & 255)]! ^
      TABLE[0x900 + ((b >>> 16) & 255)]! ^
      TABLE[0x800 + (b >>> 24)]! ^
      TABLE[0x700 + (c & 255)]! ^
      TABLE[0x600 + ((c >>> 8) & 255)]! ^
      TABLE[0x500 + ((c >>> 16) & 255)]! ^
      TABLE[0x400 + (c >>> 24)]! ^
      TABLE[0x300 + (d & 255)]! ^
      TABLE[0x200 + ((d >>> 8) & 255)]! ^
      TABLE[0x100 + ((d >>> 16) & 255)]! ^
      TABLE[d >>> 24]!;
  }
  return crc;
}
