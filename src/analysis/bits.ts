/** The bits that differ, by whether they came or went. */
export function changedBits(
  before: readonly [number, number],
  now: readonly [number, number],
): { readonly set: readonly number[]; readonly cleared: readonly number[] } {
  const set: number[] = [];
  const cleared: number[] = [];
  for (let bit = 0; bit < 64; bit++) {
    const half = bit < 32 ? 0 : 1;
    const mask = 2 ** (bit & 31);
    const was = Math.floor(before[half] / mask) % 2;
    const is = Math.floor(now[half] / mask) % 2;
    if (was !== is) (is === 1 ? set : cleared).push(bit);
  }
  return { set, cleared };
}
