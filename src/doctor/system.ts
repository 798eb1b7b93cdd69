/** The host and user that are looked at: files below a root, and what only the kernel can answer. */
import { accessSync, constants, statfsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { systemCodeOf } from '../base/errors.ts';
import { readText } from '../host/sysfs.ts';

export interface System {
  /** The directory in which `sys`, `proc`, `dev` and `etc` are. */
  readonly root: string;
  /** The user that we are. */
  readonly user: { readonly uid: number; readonly name: string };
  /** Why this user may not read and write a file (`EACCES`, `ENOENT`); undefined if it may. */
  accessFault(path: string): string | undefined;
  /** Of the file system that a folder is on. */
  space(path: string): Space;
}

export interface Space {
  /** For this user. */
  readonly freeBytes: number;
  readonly inMemory: boolean;
}

/** Of linux/magic.h: tmpfs, ramfs. */
const IN_MEMORY: ReadonlySet<number> = new Set([0x0102_1994, 0x8584_58f6]);

export function thisSystem(root = '/'): System {
  return {
    root,
    user: { uid: process.geteuid?.() ?? 0, name: userName() },
    accessFault(path) {
      try {
        accessSync(path, constants.R_OK | constants.W_OK);
        return undefined;
      } catch (error) {
        return systemCodeOf(error) ?? 'EIO';
      }
    },
    space(path) {
      const { bavail, bsize, type } = statfsSync(path);
      return { freeBytes: bavail * bsize, inMemory: IN_MEMORY.has(type) };
    },
  };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // No entry in passwd, as in many containers.
    return String(process.geteuid?.() ?? '');
  }
}

/** A file's text, such as `proc/cmdline`; empty if it cannot be read. */
export function textOf({ root }: System, path: string): string {
  return readText(join(root, path)) ?? '';
}

/** Words of the kernel's command line. */
export function kernelWords(system: System): readonly string[] {
  return textOf(system, 'proc/cmdline')
    .split(/\s+/)
    .filter((word) => word !== '');
}

/** Whether the processor says that it is a virtual machine's. */
export function isVirtual(system: System): boolean {
  return /^flags\s*:.*\bhypervisor\b/m.test(textOf(system, 'proc/cpuinfo'));
}

/** `1.5 GiB` */
export function sizeText(value: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let scaled = value;
  let unit = 0;
  for (; scaled >= 1024 && unit < units.length - 1; unit++) scaled /= 1024;
  return `${Number(scaled.toFixed(1))} ${units[unit] ?? ''}`;
}
