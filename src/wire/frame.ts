import { crc32c } from './crc32c.ts';

/**
 * How every capture begins. As in PNG, the odd bytes betray what happened to a file on the way: the
 * high bit that a 7-bit channel strips, CR LF and LF that a text-mode transfer rewrites, and the
 * end-of-file of DOS.
 */
export const MAGIC: readonly number[] = [0x89, 0x4d, 0x49, 0x4f, 0x0d, 0x0a, 0x1a, 0x0a];

/** Raised when a reader of the version before could misread the file. */
export const FORMAT_VERSION = 1;

/** Magic, and the version as u32. */
export const FILE_HEADER_BYTES = 12;

/** Length and CRC-32C of the payload, u32 each. */
export const FRAME_HEADER_BYTES = 8;

/** A frame that claims to be larger is damage. A full batch with every column is 2.1 MiB. */
export const MAX_PAYLOAD_BYTES = 4 << 20;

/** Writes the file header to the front of `out`. */
export function writeFileHeader(out: Uint8Array): void {
  out.set(MAGIC);
  writeU32(out, MAGIC.length, FORMAT_VERSION);
}

/** Puts the header before a payload that lies at `at + FRAME_HEADER_BYTES`. */
export function sealFrame(out: Uint8Array, at: number, payloadBytes: number): void {
  const start = at + FRAME_HEADER_BYTES;
  writeU32(out, at, payloadBytes);
  writeU32(out, at + 4, crc32c(out, start, start + payloadBytes));
}

/** u32, little-endian, at any alignment. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
  );
}

function writeU32(out: Uint8Array, at: number, value: number): void {
  out[at] = value;
  out[at + 1] = value >>> 8;
  out[at + 2] = value >>> 16;
  out[at + 3] = value >>> 24;
}
