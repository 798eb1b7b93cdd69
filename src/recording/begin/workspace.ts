/** The folders and files of a recording that begins. */
import { statfsSync } from 'node:fs';
import { access, chmod, chown, realpath, rm } from 'node:fs/promises';
import { dirname, join, resolve as resolvePath } from 'node:path';
import { MmioError, messageOf } from '../../base/errors.ts';
import { makeFolders } from '../../base/make-folders.ts';
import type { SessionFolder } from '../session/session-folder.ts';
import { runDir } from '../session/session-folder.ts';
import { Spool } from '../spool/spool.ts';
import type { RecordOptions } from './options.ts';

/** Where the spool of a recording is: in its own folder, or below the one that the user names. */
export function spoolDirOf(folder: SessionFolder, spoolDir: string | undefined): string {
  if (spoolDir === undefined) return folder.spool;
  return join(resolvePath(spoolDir), `mmiobridge-${folder.id}`);
}

/** TMPFS_MAGIC of Linux' magic.h. */
const TMPFS_MAGIC = 0x01021994;

export async function createSpool(
  dir: SessionFolder,
  options: Pick<RecordOptions, 'spoolDir' | 'notice'>,
  uid: number | undefined,
): Promise<Spool> {
  const path = spoolDirOf(dir, options.spoolDir);
  try {
    const made = await makeFolders(dirname(path));
    if (made !== undefined && options.spoolDir !== undefined) {
      options.notice(`the folder ${made} was not there, and has been made`);
    }
    await makeFolders(path, 0o700);
  } catch (error) {
    throw new MmioError('io', `cannot make the spool ${path}`, {
      evidence: messageOf(error),
      hint: 'name a tmpfs folder where you may write with --spool DIR',
      cause: error,
    });
  }
  if (options.spoolDir !== undefined && statfsSync(path).type !== TMPFS_MAGIC) {
    options.notice(`${options.spoolDir} is no tmpfs: a guest that logs to a disk waits for it`);
  }
  const us = process.getuid?.() ?? 0;
  if (uid !== undefined && uid !== us && us === 0) {
    await chown(path, uid, -1);
    // QEMU has to get there, whatever our umask says; what lies beside it has modes of its own.
    if (options.spoolDir === undefined)
      for (const way of [runDir(), dir.path]) await chmod(way, 0o711);
  }
  // As /proc names it, where we look whether QEMU has closed a segment.
  return Spool.create(await realpath(path));
}

/** A mistyped path is told before QEMU is touched. */
export async function requireFolder(output: string): Promise<void> {
  if (output === '-') return;
  try {
    await access(dirname(resolvePath(output)));
  } catch (error) {
    throw new MmioError('io', `cannot write ${output}`, {
      evidence: messageOf(error),
      hint: 'name a file in a folder that exists and that you may write to',
      cause: error,
    });
  }
}

export async function removeAll(
  dir: SessionFolder | undefined,
  spool: Spool | undefined,
): Promise<void> {
  await spool?.close();
  if (spool !== undefined) await rm(spool.dir, { recursive: true, force: true });
  await dir?.remove();
}
