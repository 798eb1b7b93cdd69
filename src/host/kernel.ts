import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { readText } from './sysfs.ts';

/** What changes the host, so that tests can have one of their own. */
export interface Kernel {
  /** @throws MmioError `refused` */
  write(path: string, text: string): Promise<void>;
  /** @param module a name, or a `modalias`. @throws MmioError `refused` */
  loadModule(module: string): Promise<void>;
}

export const KERNEL: Kernel = {
  async write(path, text) {
    try {
      // Without O_CREAT and O_TRUNC, which sysfs does not know.
      await using file = await open(path, constants.O_WRONLY);
      await file.write(text);
    } catch (error) {
      throw new MmioError('refused', `the kernel does not take "${text.trim()}" in ${path}`, {
        evidence: messageOf(error),
        hint: HINTS[systemCodeOf(error) ?? ''] ?? 'see what dmesg says of it',
        cause: error,
      });
    }
  },

  async loadModule(module) {
    const modprobe = readText('/proc/sys/kernel/modprobe') || '/sbin/modprobe';
    try {
      await promisify(execFile)(modprobe, [module]);
    } catch (error) {
      throw new MmioError('refused', `cannot load the module ${module}`, {
        evidence: messageOf(error).trim(),
        hint: "it is in your distribution's kernel package: is the one of the running kernel installed?",
        cause: error,
      });
    }
  },
};

const NOT_PERMITTED = 'run it as root, and outside of containers';
const HINTS: Readonly<Record<string, string>> = {
  EACCES: NOT_PERMITTED,
  EPERM: NOT_PERMITTED,
  EROFS: 'sysfs is mounted read-only, as in containers: run it on the host',
};
