/** More than the two clocks of the process differ by themselves. */
const STEP_MS = 2;

let offsetMs = 0;

/**
 * Milliseconds since 1970, to about a microsecond, by the wall clock as it is now: `Date.now()` has
 * milliseconds alone, and `performance.now()` does not follow when somebody sets the clock.
 */
export function wallClockMs(): number {
  const steadyMs = performance.timeOrigin + performance.now();
  const stepMs = Date.now() - (steadyMs + offsetMs);
  if (stepMs > STEP_MS || stepMs < -STEP_MS) offsetMs += stepMs;
  return steadyMs + offsetMs;
}
