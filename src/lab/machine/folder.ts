/** The folder that a run leaves: nothing in it is written over, and whoever finds it can believe it. */
import { mkdir } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { makeFolders } from '../../base/make-folders.ts';
import { writeWhole } from '../../base/write-whole.ts';

export class RunFolder {
  /** Absolute. */
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** Makes it: `NAME-20261128T101500` below `parent`. Throws MmioError `io`. */
  static async create(parent: string, name: string, at: Date): Promise<RunFolder> {
    const stamp = at.toISOString().replaceAll(/[-:]/g, '').slice(0, 15);
    const safe = name.replaceAll(/[^A-Za-z0-9._-]+/g, '-');
    await makeFolders(parent).catch((error: unknown) => {
      throw cannotMake(parent, error);
    });
    // Two runs in one second have names of their own.
    for (let number = 1; ; number++) {
      const dir = join(parent, `${safe}-${stamp}${number === 1 ? '' : `-${number}`}`);
      try {
        await mkdir(dir);
        return new RunFolder(dir);
      } catch (error) {
        if (systemCodeOf(error) !== 'EEXIST') throw cannotMake(dir, error);
      }
    }
  }

  /** A file in it, by its name there; the folders on the way are made. */
  async path(name: string): Promise<string> {
    const path = join(this.dir, name);
    await makeFolders(dirname(path));
    return path;
  }

  /** What a file in it is called there. */
  nameOf(path: string): string {
    return relative(this.dir, path);
  }

  /** Whole or not at all. */
  async write(name: string, text: string): Promise<void> {
    await writeWhole(await this.path(name), text);
  }
}

function cannotMake(path: string, error: unknown): MmioError {
  return new MmioError('io', `cannot make the folder of the run, ${path}`, {
    evidence: messageOf(error),
    hint: 'name a folder where you may write: --output DIR',
    cause: error,
  });
}
