import type { Vm } from '../../../machine/vm.ts';
import { isAnyNew, isWritten } from '../../spool/move-log.ts';

/** Files that QEMU writes outside of the spool, as `SpoolWriter.othersFiles`. */
export function othersFilesOf(vm: Vm, spoolDir: string): readonly string[] | undefined {
  return vm.writtenFiles()?.filter((file) => !file.includes(`${spoolDir}/`));
}

/**
 * Has QEMU's log been sent away from our files? A file that QEMU has left stays open for a while: if
 * it writes a new one of others since it was last asked, it is seen whether ours is closed.
 *
 * @returns what asks; false also where nobody can say
 */
export function elsewhereLook(
  vm: Vm,
  spoolDir: string,
  isOurs: (path: string) => boolean,
): () => Promise<boolean> {
  let known = othersFilesOf(vm, spoolDir);
  const ours = () => vm.openFiles()?.filter(isOurs);
  return async () => {
    const others = othersFilesOf(vm, spoolDir);
    const isNew = isAnyNew(known, others);
    known = others;
    if (isNew) for (const path of ours() ?? []) if (await isWritten(vm, path)) return false;
    return ours()?.length === 0;
  };
}
