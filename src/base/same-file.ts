/** Which file it is that a path leads to, and who writes it. */
import { fstatSync, readdirSync, statSync, type Stats } from 'node:fs';
import { openFlagsOf, processIds } from './proc-fs.ts';

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
  return processIds().find((pid) => pid !== process.pid && writes(pid, id));
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
      return (openFlagsOf(pid, name) & WRITES) !== 0;
    } catch {
      // Closed since it was listed.
      return false;
    }
  });
}
