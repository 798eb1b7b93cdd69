/** What the host does with the disks behind a PCI device; see proc(5) and sysfs-block. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { systemCodeOf } from '../base/errors.ts';
import { readNames, readText, resolvedPath } from './sysfs.ts';

/**
 * Lines such as `vda2 is part of dm-0 vg-root (mounted on /)`, one for each disk or partition in use;
 * none if the host does nothing with them. `root` is the directory in which `sys`, `proc` and `dev`
 * are. As another user than root, disks that only their holder knows of (ZFS) are not seen.
 */
export async function diskUses(root: string, address: string): Promise<readonly string[]> {
  const host = new HostDisks(root);
  const disks = host.behind(address).map(async (disk) => {
    const lines = host.withPartitions(disk).flatMap((block) => {
      const uses = host.usesOf(block);
      return uses.length === 0 ? [] : [`${block.name} is ${uses.join(', ')}`];
    });
    if (lines.length > 0 || !(await isHeld(join(root, 'dev', disk.name)))) return lines;
    return [`${disk.name} is held by the kernel (a ZFS pool, say)`];
  });
  return (await Promise.all(disks)).flat();
}

interface Block {
  readonly name: string;
  /** Its folder, links resolved. */
  readonly path: string;
}

class HostDisks {
  readonly #root: string;
  readonly #mounts: readonly Mount[];
  /** Names below /dev. */
  readonly #swaps: ReadonlySet<string>;
  /** Members of file systems that show only one of their disks as mounted. */
  readonly #btrfs: ReadonlySet<string>;

  constructor(root: string) {
    this.#root = root;
    this.#mounts = parseMounts(readText(join(root, 'proc/self/mountinfo')) ?? '');
    this.#swaps = new Set(swapPaths(root).map((path) => basename(path)));
    const btrfs = join(root, 'sys/fs/btrfs');
    const members = readNames(btrfs).flatMap((uuid) => readNames(join(btrfs, uuid, 'devices')));
    this.#btrfs = new Set(members);
  }

  /** Whole disks that are reached through a PCI device. */
  behind(address: string): readonly Block[] {
    return readNames(join(this.#root, 'sys/block'))
      .map((name) => this.#block(name))
      .filter((block) => block !== undefined)
      .filter(({ path }) => pathsTo(path).some((each) => each.split('/').includes(address)));
  }

  withPartitions({ name, path }: Block): readonly Block[] {
    const inside = readNames(path).map((each) => ({ name: each, path: join(path, each) }));
    const partitions = inside.filter(
      (each) => readText(join(each.path, 'partition')) !== undefined,
    );
    return [{ name, path }, ...partitions];
  }

  usesOf({ name, path }: Block): readonly string[] {
    const number = readText(join(path, 'dev'));
    const mounts = this.#mounts.filter(
      (mount) => mount.device === number || mount.source === `/dev/${name}`,
    );
    const [first] = mounts;
    return [
      ...(first === undefined ? [] : [`mounted on ${first.point}${andMore(mounts.length - 1)}`]),
      ...(first === undefined && this.#btrfs.has(name) ? ['part of a mounted btrfs'] : []),
      ...(this.#swaps.has(name) ? ['swap space'] : []),
      ...readNames(join(path, 'holders')).map((holder) => this.#partOf(holder)),
    ];
  }

  /** A volume of LVM, dm-crypt, MD, …, which may have partitions and holders of its own. */
  #partOf(holder: string): string {
    const block = this.#block(holder);
    if (block === undefined) return `part of ${holder}`;
    const title = readText(join(block.path, 'dm/name'));
    const uses = this.withPartitions(block).flatMap((each) => this.usesOf(each));
    const does = uses.length === 0 ? '' : ` (${uses.join(', ')})`;
    return `part of ${holder}${title === undefined ? '' : ` ${title}`}${does}`;
  }

  #block(name: string): Block | undefined {
    const path = resolvedPath(join(this.#root, 'sys/block', name));
    return path === undefined ? undefined : { name, path };
  }
}

/** An NVMe disk that can have several controllers hangs below none of them, but links to each. */
function pathsTo(path: string): readonly string[] {
  const parent = dirname(path);
  if (!/^nvme-subsys\d+$/.test(basename(parent))) return [path];
  const controllers = readNames(parent).filter((name) => /^nvme\d+$/.test(name));
  return controllers.map((name) => resolvedPath(join(parent, name)) ?? '');
}

interface Mount {
  /** `8:1`; btrfs and others without a disk of their own have a number that belongs to none. */
  readonly device: string;
  readonly point: string;
  readonly source: string;
}

/** `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` */
function parseMounts(text: string): readonly Mount[] {
  return text.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ', 2);
    const [, , device, , point] = before.split(' ');
    const [, source] = after.split(' ');
    if (device === undefined || point === undefined || source === undefined) return [];
    return [{ device, point: unescape(point), source: unescape(source) }];
  });
}

/** Links such as /dev/mapper/swap resolved. */
function swapPaths(root: string): readonly string[] {
  const lines = readText(join(root, 'proc/swaps'))?.split('\n').slice(1) ?? [];
  const paths = lines.map((line) => unescape(line.split(/\s/, 1)[0] ?? ''));
  return paths.map((path) => resolvedPath(join(root, path)) ?? path);
}

/** A space is `\040`. */
function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

function andMore(n: number): string {
  return n === 0 ? '' : ` and ${n} more ${n === 1 ? 'place' : 'places'}`;
}

/** Whether the kernel lends the disk, or a part of it, to someone alone; see open(2), O_EXCL. */
async function isHeld(path: string): Promise<boolean> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK);
    await file.close();
    return false;
  } catch (error) {
    return systemCodeOf(error) === 'EBUSY';
  }
}
