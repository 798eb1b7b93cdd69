/**
 * What a device was before it was bound, in `/run/mmiobridge/drivers/ADDRESS`: lines of `key=value`,
 * which qemu-scripts/vfio-bind.sh reads and writes too. Bindings and /run end with the same reboot.
 */
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeFolders } from '../base/make-folders.ts';
import { writeWhole } from '../base/write-whole.ts';
import { readText } from './sysfs.ts';

export interface BindRecord {
  /** undefined: it had none. */
  readonly driver: string | undefined;
  readonly driverOverride: string | undefined;
}

export function bindRecordPath(root: string, address: string): string {
  return join(root, 'run/mmiobridge/drivers', address);
}

/** undefined if there is none. A value that is no driver's name counts as not there. */
export function readBindRecord(root: string, address: string): BindRecord | undefined {
  const text = readText(bindRecordPath(root, address));
  if (text === undefined) return undefined;
  const value = (key: string): string | undefined =>
    new RegExp(`^${key}=([\\w.-]*\\w)$`, 'm').exec(text)?.[1];
  return { driver: value('driver'), driverOverride: value('driver_override') };
}

/** The lines of a record's file. */
export function bindRecordLines({ driver = '', driverOverride = '' }: BindRecord): string[] {
  return [`driver=${driver}`, `driver_override=${driverOverride}`];
}

/** It is there whole, or not at all. */
export async function writeBindRecord(
  root: string,
  address: string,
  record: BindRecord,
): Promise<void> {
  const path = bindRecordPath(root, address);
  await makeFolders(dirname(path));
  await writeWhole(path, `${bindRecordLines(record).join('\n')}\n`);
}

export async function removeBindRecord(root: string, address: string): Promise<void> {
  await rm(bindRecordPath(root, address), { force: true });
}
