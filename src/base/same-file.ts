/** Which file it is that a path leads to, and who writes it. */
import { fstatSync, readFileSync, readdirSync, statSync, type Stats } from 'node:fs';

/** `-` is the open file with this number. */
export type StandardFile = 0 | 1;

/** Names a regular file, whatever leads to it; undefined for one that is not there, or is none. */
export function fileIdOf(path: string, dash: StandardFile): string | undefined {
  let found: Stats | undefined;
  try {
    found = path === '-' ? fstatSync(dash) : statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
  return found?.isFile() === true ? `${found.dev}:${found.ino}` : undefined;
}

const WRITES = 0o3;

/** A process that has the file open for writing, where we may see it; not ourselves. */
export function writerOf(path: string): number | undefined {
  const id = fileIdOf(path, 1);
  if (id === undefined) return undefined;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .find((pid) => pid !== process.pid && writes(pid, id));
}

function writes(pid: number, id: string): boolean {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    return false;
  }
  return names.some((name) => {
    try {
      if (fileIdOf(`/proc/${pid}/fd/${name}`, 1) !== id) return false;
      const flags = /^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${name}`, 'utf8'));
      return (parseInt(flags?.[1] ?? '0', 8) & WRITES) !== 0;
    } catch {
      // Closed since it was listed.
      return false;
    }
  });
}
