/** How the clock of KVM's tracepoints (CLOCK_MONOTONIC) and that of QEMU's log stand to each other. */

const ATTEMPTS = 3;

/** The wall clock, in nanoseconds since 1970, at `monotonicNs`; exact to about a microsecond. */
export interface ClockPair {
  readonly monotonicNs: bigint;
  readonly wallNs: bigint;
}

/**
 * Reads both clocks at one moment. JavaScript's wall clock has milliseconds only, so that the moment
 * is one at which it goes on: for at most a few milliseconds nothing else runs here.
 */
export function readClocks(): ClockPair {
  let best: ClockPair | undefined;
  let bestDoubtNs = 0n;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const startMs = Date.now();
    let before = process.hrtime.bigint();
    let nowMs = Date.now();
    let after = process.hrtime.bigint();
    while (nowMs === startMs) {
      before = after;
      nowMs = Date.now();
      after = process.hrtime.bigint();
    }
    // We may have been put aside between the two.
    const doubtNs = after - before;
    if (best !== undefined && doubtNs >= bestDoubtNs) continue;
    best = { monotonicNs: before + doubtNs / 2n, wallNs: BigInt(nowMs) * 1_000_000n };
    bestDoubtNs = doubtNs;
  }
  return best ?? { monotonicNs: process.hrtime.bigint(), wallNs: BigInt(Date.now()) * 1_000_000n };
}

/** Session time, in nanoseconds, at `baseNs` of CLOCK_MONOTONIC. */
export function sessionTimeAt(
  baseNs: bigint,
  start: { readonly startSec: number; readonly startNs: number },
): number {
  const { monotonicNs, wallNs } = readClocks();
  const startWallNs = BigInt(start.startSec) * 1_000_000_000n + BigInt(start.startNs);
  return Number(wallNs - startWallNs + (baseNs - monotonicNs));
}
