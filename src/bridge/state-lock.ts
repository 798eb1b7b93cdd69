/** One collector a state folder: two would acknowledge past each other. */
import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MmioError, systemCodeOf } from '../base/errors.ts';
import { isAlive, ourselves, type ProcessRef } from '../machine/proc.ts';

/**
 * Takes the folder for this process; what a dead one has left does not count. Returns what gives it
 * back. Throws MmioError `usage` where another collector has it.
 */
export async function lockState(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, 'lock');
  const holder = await holderOf(path);
  if (holder !== undefined && isAlive(holder.pid, holder.startTime))
    throw taken(folder, holder.pid);
  await rm(path, { force: true });
  try {
    const file = await open(path, 'wx', 0o600);
    await file.writeFile(JSON.stringify(ourselves()));
    await file.close();
  } catch (error) {
    // Another one began in this very moment.
    if (systemCodeOf(error) === 'EEXIST') throw taken(folder, (await holderOf(path))?.pid);
    throw error;
  }
  return () => rm(path, { force: true });
}

async function holderOf(path: string): Promise<ProcessRef | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as ProcessRef;
  } catch (error) {
    // Killed before it had written it down.
    if (systemCodeOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function taken(folder: string, pid: number | undefined): MmioError {
  return new MmioError('usage', 'another collector keeps its state there', {
    evidence: `${folder}${pid === undefined ? '' : `: process ${pid} runs`}`,
    hint: 'give each of them a folder of its own with --state',
  });
}
