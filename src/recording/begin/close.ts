/** What is left when a recording has been written to its end. */
import { rm } from 'node:fs/promises';
import type { Started } from './assemble.ts';

/** Removes its spool and its folder; what QEMU said last, of one that we started. */
export async function closeSession({ child, folder, info }: Started): Promise<string> {
  if (folder.spool !== info.spoolDir) await rm(info.spoolDir, { recursive: true, force: true });
  const words = (await child?.lastWords()) ?? '';
  await folder.remove();
  return words;
}
