import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemCodeOf } from './errors.ts';

/** Others may make or remove a folder on the way meanwhile; more often than this nobody does. */
const TRIES = 10;

/**
 * Makes a folder, and those above it that are missing. Not Node's `recursive`: Node 20 tries for ever
 * where a folder is there in which none can be made (`/proc`).
 *
 * @returns the first that was made, or nothing where all were there
 * @throws what mkdir(2) says
 */
export async function makeFolders(path: string, mode = 0o777): Promise<string | undefined> {
  let first: string | undefined;
  for (let left = TRIES; ; left--) {
    try {
      await mkdir(path, mode);
      return first ?? path;
    } catch (error) {
      if (await isFolder(path)) return first;
      const parent = dirname(path);
      if (systemCodeOf(error) !== 'ENOENT' || parent === path || left === 0) throw error;
      first = (await makeFolders(parent, mode)) ?? first;
    }
  }
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
