/** Reading of sysfs and procfs, where anything may be missing, refused, or gone the next moment. */
import { readFileSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';

/** What a file says, without the last line's end; undefined if it cannot be read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1').trimEnd();
  } catch {
    // Not there, not permitted, or the device is gone (ENODEV) or broken (EIO).
    return undefined;
  }
}

/** Names in a folder, in order; none if it cannot be read. */
export function readNames(path: string): readonly string[] {
  try {
    return readdirSync(path).toSorted();
  } catch {
    return [];
  }
}

/** The last part of what a link points to (a driver, a group); undefined if there is no link. */
export function linkName(path: string): string | undefined {
  const target = readLink(path);
  return target === undefined ? undefined : basename(target);
}

/** What a link points to, as it is written there. */
export function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** The path with its links resolved; undefined if it leads nowhere. */
export function resolvedPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
