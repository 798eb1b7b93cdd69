import { rename, rm, writeFile } from 'node:fs/promises';

/**
 * Writes a text file that whoever reads it reads whole. Throws what the system says; then it is as it
 * was, and nothing lies beside it.
 */
export async function writeWhole(path: string, text: string, mode?: number): Promise<void> {
  const fresh = `${path}.new`;
  try {
    await writeFile(fresh, text, { mode });
    await rename(fresh, path);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}
