import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { crc32c } from '../../../src/wire/crc32c.ts';

const range = (from: number, step: number): Uint8Array =>
  Uint8Array.from({ length: 32 }, (_, index) => from + index * step);

/** Straight from the definition, one bit at a time. */
function bitByBit(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

describe('crc32c', () => {
  it.each([
    ['nothing', new Uint8Array(0), 0],
    ['the check value of the catalogue', Buffer.from('123456789'), 0xe306_9283],
    ['RFC 3720: zeros', range(0, 0), 0x8a91_36aa],
    ['RFC 3720: ones', range(0xff, 0), 0x62a8_ab43],
    ['RFC 3720: incrementing', range(0, 1), 0x46dd_794e],
    ['RFC 3720: decrementing', range(31, -1), 0x113f_db5c],
  ])('knows %s', (_what, bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
  });

  it('is the same at every alignment and for every part of an array', () => {
    const part = fc.tuple(fc.uint8Array({ maxLength: 200 }), fc.nat(200), fc.nat(200), fc.nat(20));
    fc.assert(
      fc.property(part, ([bytes, a, b, shift]) => {
        const held = new Uint8Array(bytes.length + shift).subarray(shift);
        held.set(bytes);
        const start = Math.min(a, b, bytes.length);
        const end = Math.min(Math.max(a, b), bytes.length);
        expect(crc32c(held, start, end)).toBe(bitByBit(bytes.subarray(start, end)));
      }),
      { numRuns: 500 },
    );
  });
});
