/*
 * Numbers and text as ASCII, straight into a buffer. Each function writes at `at` and returns the
 * position after what it wrote; the caller has made sure of the room. No string is made, because
 * these run several times for each access.
 */

const ZERO = 0x30;
/** One hexadecimal digit each. */
const HEX_DIGIT = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));
/** `000` to `999`, three bytes each. */
const THREE_DIGITS = new Uint8Array(3000);
for (let value = 0; value < 1000; value++) {
  THREE_DIGITS[value * 3] = ZERO + Math.floor(value / 100);
  THREE_DIGITS[value * 3 + 1] = ZERO + (Math.floor(value / 10) % 10);
  THREE_DIGITS[value * 3 + 2] = ZERO + (value % 10);
}

const TWO_POW_32 = 4294967296;

export function putBytes(bytes: Uint8Array, at: number, source: Uint8Array): number {
  // PERF: a loop is faster than the call of `set`, but only for few bytes.
  if (source.length > 16) bytes.set(source, at);
  else for (let i = 0; i < source.length; i++) bytes[at + i] = source[i]!;
  return at + source.length;
}

/** `text` must be ASCII. */
export function putAscii(bytes: Uint8Array, at: number, text: string): number {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  return at + text.length;
}

/**
 * Lower-case hexadecimal without `0x` and without leading zeros; `value` as unsigned 32 bits. Up to
 * eight bytes behind `at` are written to, whatever the number of digits.
 */
export function putHex32(bytes: Uint8Array, at: number, value: number): number {
  const digits = (35 - Math.clz32(value | 1)) >> 2;
  // PERF: always eight digits, the first of them in front: a loop over as many as there are would
  // end where the processor does not expect it.
  const first = value << (32 - 4 * digits);
  bytes[at] = HEX_DIGIT[first >>> 28]!;
  bytes[at + 1] = HEX_DIGIT[(first >>> 24) & 15]!;
  bytes[at + 2] = HEX_DIGIT[(first >>> 20) & 15]!;
  bytes[at + 3] = HEX_DIGIT[(first >>> 16) & 15]!;
  bytes[at + 4] = HEX_DIGIT[(first >>> 12) & 15]!;
  bytes[at + 5] = HEX_DIGIT[(first >>> 8) & 15]!;
  bytes[at + 6] = HEX_DIGIT[(first >>> 4) & 15]!;
  bytes[at + 7] = HEX_DIGIT[first & 15]!;
  return at + digits;
}

/** `digits` hexadecimal digits with leading zeros, of the low bits of `value`. */
export function putHexFixed(bytes: Uint8Array, at: number, value: number, digits: number): number {
  let rest = value;
  for (let i = at + digits - 1; i >= at; i--) {
    bytes[i] = HEX_DIGIT[rest & 15]!;
    rest >>>= 4;
  }
  return at + digits;
}

/** A 64-bit value from its two halves: lower-case hexadecimal, no `0x`, no leading zeros. */
export function putHex64(bytes: Uint8Array, at: number, lo: number, hi: number): number {
  if (hi === 0) return putHex32(bytes, at, lo);
  return putHexFixed(bytes, putHex32(bytes, at, hi), lo, 8);
}

/** A non-negative integer of at most 2^53 as lower-case hexadecimal. */
export function putHexNumber(bytes: Uint8Array, at: number, value: number): number {
  if (value < TWO_POW_32) return putHex32(bytes, at, value);
  return putHex64(bytes, at, value >>> 0, Math.floor(value / TWO_POW_32));
}

/** An integer in decimal; exact as far as a double is (2^53 and multiples of its unit above). */
export function putDecimal(bytes: Uint8Array, at: number, value: number): number {
  if (value < 0) {
    bytes[at] = 0x2d;
    return putDecimal(bytes, at + 1, -value);
  }
  if (value >= 1e9) return putLargeDecimal(bytes, at, value);
  if (value < 10) {
    bytes[at] = ZERO + value;
    return at + 1;
  }
  let after = at + 1;
  for (let power = 10; power <= value; power *= 10) after++;
  // PERF: `| 0` keeps the divisions below in integer registers.
  let rest = value | 0;
  for (let i = after - 1; i >= at; i--) {
    const tenth = (rest / 10) | 0;
    bytes[i] = ZERO + rest - tenth * 10;
    rest = tenth;
  }
  return after;
}

function putLargeDecimal(bytes: Uint8Array, at: number, value: number): number {
  if (value > Number.MAX_SAFE_INTEGER) return putAscii(bytes, at, BigInt(value).toString());
  const billions = Math.floor(value / 1e9);
  const start = putDecimal(bytes, at, billions);
  const rest = value - billions * 1e9;
  const millions = Math.floor(rest / 1e6);
  putThreeDigits(bytes, start, millions);
  return putSixDigits(bytes, start + 3, rest - millions * 1e6);
}

function putThreeDigits(bytes: Uint8Array, at: number, value: number): number {
  const from = value * 3;
  bytes[at] = THREE_DIGITS[from]!;
  bytes[at + 1] = THREE_DIGITS[from + 1]!;
  bytes[at + 2] = THREE_DIGITS[from + 2]!;
  return at + 3;
}

/** An integer from 0 to 999999 as six digits. */
export function putSixDigits(bytes: Uint8Array, at: number, value: number): number {
  const thousands = (value / 1000) | 0;
  putThreeDigits(bytes, at, thousands);
  return putThreeDigits(bytes, at + 3, (value - thousands * 1000) | 0);
}
