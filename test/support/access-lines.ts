/** The R and W lines of mmiotrace text as what is compared: op, width, address, value. */
export function accessesOf(text: string): string[] {
  const accesses: string[] = [];
  for (const line of text.split('\n')) {
    if (!line.startsWith('R ') && !line.startsWith('W ')) continue;
    const [op, width, , , address, value] = line.split(' ');
    accesses.push(`${op ?? ''} ${width ?? ''} ${address ?? ''} ${value ?? ''}`);
  }
  return accesses;
}

/** Where two lists part, with a few lines around it; undefined where they are the same. */
export function firstDifference(
  ours: readonly string[],
  theirs: readonly string[],
): string | undefined {
  const length = Math.max(ours.length, theirs.length);
  for (let i = 0; i < length; i++) {
    if (ours[i] === theirs[i]) continue;
    const around = (list: readonly string[]) => list.slice(Math.max(0, i - 5), i + 6).join('\n  ');
    return `access ${i} of ${ours.length} and ${theirs.length}:\nours\n  ${around(ours)}\ntheirs\n  ${around(theirs)}`;
  }
  return undefined;
}
