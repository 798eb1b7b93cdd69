/** Which disk images a VM is started from, so that somebody can tell that they had the same. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { resolve as resolvePath } from 'node:path';
import { scanArgv } from '../../machine/argv-scan.ts';
import { parseOptionValue } from '../../machine/option-value.ts';

export interface DiskImage {
  readonly path: string;
  readonly sizeBytes: number;
  readonly modified: string;
  /** null: not computed, and `why` says why. */
  readonly sha256: string | null;
  readonly why?: string;
}

/** About two seconds; nobody wants to wait minutes for a run to begin. */
const MAX_HASHED_BYTES = 2 ** 30;

const PLAIN = [
  'hda',
  'hdb',
  'hdc',
  'hdd',
  'cdrom',
  'fda',
  'fdb',
  'sd',
  'kernel',
  'initrd',
  'bios',
  'pflash',
  'mtdblock',
  'dtb',
  '',
];
const NAMED = ['drive', 'blockdev', 'device'];

/** The files that QEMU's command line names as disks, kernels and firmware. */
export function imagePaths(argv: readonly string[]): string[] {
  const found = new Set<string>();
  for (const { name, value } of scanArgv(argv).options) {
    if (value !== undefined && PLAIN.includes(name)) found.add(value);
    if (value === undefined || !NAMED.includes(name)) continue;
    const pairs = parseOptionValue(value, 'driver');
    for (const key of ['file', 'filename', 'file.filename', 'romfile']) {
      const path = pairs.get(key);
      if (path !== undefined && path !== '') found.add(path);
    }
    const nested = pairs.get('file');
    if (nested?.startsWith('{') === true) {
      const inner = parseOptionValue(nested, 'driver').get('filename');
      if (inner !== undefined) found.add(inner);
    }
  }
  return [...found];
}

/** What is known of each; names of no regular file (`null-co://`, `nbd:…`) are left out. */
export async function readImages(argv: readonly string[]): Promise<DiskImage[]> {
  const images: DiskImage[] = [];
  for (const name of imagePaths(argv)) {
    const path = await realpath(resolvePath(name)).catch(() => undefined);
    const found = path === undefined ? undefined : await stat(path).catch(() => undefined);
    if (path === undefined || found?.isFile() !== true) continue;
    const facts = { path, sizeBytes: found.size, modified: found.mtime.toISOString() };
    if (found.size > MAX_HASHED_BYTES) {
      images.push({
        ...facts,
        sha256: null,
        why: 'larger than 1 GiB: told by size and time alone',
      });
      continue;
    }
    images.push({ ...facts, ...(await hashOf(path)) });
  }
  return images;
}

async function hashOf(path: string): Promise<Pick<DiskImage, 'sha256' | 'why'>> {
  const hash = createHash('sha256');
  try {
    for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
    return { sha256: hash.digest('hex') };
  } catch (error) {
    return { sha256: null, why: error instanceof Error ? error.message : String(error) };
  }
}
