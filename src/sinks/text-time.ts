import { putAscii, putSixDigits } from './text-digits.ts';

/**
 * Session time as mmiotrace prints it: `seconds.microseconds`, the latter always six digits,
 * `baseSec` added to the seconds, never below 0.000000.
 */
export class TextTime {
  readonly #baseSec: number;
  /** The second that was printed last: where it begins, and its digits with the point. */
  #secondNs = Number.NaN;
  readonly #digits = new Uint8Array(24);
  #digitCount = 0;

  constructor(baseSec: number) {
    this.#baseSec = baseSec;
  }

  /** Writes at `at` (at most 24 bytes) and returns the position after it. */
  put(bytes: Uint8Array, at: number, timeNs: number): number {
    // PERF: nearly always the second is that of the line before, and its digits are copied. The
    // comparison is written so that NaN, "no second yet", is false.
    const sinceNs = timeNs - this.#secondNs;
    if (sinceNs >= 0 && sinceNs < 1e9) {
      const digits = this.#digits;
      const count = this.#digitCount;
      for (let i = 0; i < count; i++) bytes[at + i] = digits[i]!;
      return putSixDigits(bytes, at + count, (sinceNs / 1000) | 0);
    }
    return this.#putNewSecond(bytes, at, timeNs);
  }

  /** The same as a string. */
  text(timeNs: number): string {
    const { sec, usec } = this.#split(timeNs);
    return `${sec}.${usec.toString().padStart(6, '0')}`;
  }

  #putNewSecond(bytes: Uint8Array, at: number, timeNs: number): number {
    const { sec, usec } = this.#split(timeNs);
    this.#digitCount = putAscii(this.#digits, 0, `${sec}.`);
    // A clamped or inexact time says nothing about where its second begins.
    const exact = Number.isSafeInteger(timeNs) && (sec > 0 || timeNs >= 0);
    this.#secondNs = exact ? (sec - this.#baseSec) * 1e9 : Number.NaN;
    return putSixDigits(bytes, putAscii(bytes, at, `${sec}.`), usec);
  }

  #split(timeNs: number): { readonly sec: number; readonly usec: number } {
    const us = Number.isSafeInteger(timeNs) ? Math.floor(timeNs / 1000) : nearestUs(timeNs);
    const secOfSession = Math.floor(us / 1e6);
    const sec = secOfSession + this.#baseSec;
    return sec < 0 ? { sec: 0, usec: 0 } : { sec, usec: us - secOfSession * 1e6 };
  }
}

/**
 * Beyond 104 days from time 0 a double holds no single nanoseconds any more, but what was a
 * microsecond is still nearest to it: the unit is 512 ns at 136 years, which is all that 32 bits of
 * seconds allow.
 */
function nearestUs(timeNs: number): number {
  if (!Number.isFinite(timeNs)) return 0;
  const exact = BigInt(Math.round(timeNs));
  return Number((exact + 500n - ((((exact + 500n) % 1000n) + 1000n) % 1000n)) / 1000n);
}
