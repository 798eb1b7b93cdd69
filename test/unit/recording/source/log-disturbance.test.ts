/** What somebody else has done to QEMU's log is told from what a QEMU does that only ends. */
import { expect, test } from 'vitest';
import type { Vm } from '../../../../src/machine/vm.ts';
import { logDisturbance } from '../../../../src/recording/source/log/writer.ts';

const OURS = '/spool/000001';

/** A QEMU with these files open, whose trace events are all on. */
function qemu(open: string[]) {
  const vm = {
    openFiles: () => open.map((file) => file.replace(/^\d+ /, '')),
    writtenFiles: () => open.filter((file) => file.startsWith('9 ')),
    holdsOpen: (path: string) => open.includes(path),
    qmp: { execute: async (): Promise<unknown> => [] },
  };
  const look = logDisturbance(vm as unknown as Vm, ['memory_region_ops_read'], {
    dir: '/spool',
    isOurs: (path) => path === OURS,
    logAgain: async () => undefined,
  });
  return { vm, look };
}

test('a log that is ours is as it was arranged', async () => {
  expect(await qemu([OURS]).look()).toBeUndefined();
});

test('one that is not is elsewhere', async () => {
  expect(await qemu(['/elsewhere.log']).look()).toMatchObject({
    what: "QEMU's log was sent elsewhere",
  });
});

test('one that QEMU has still open, having left it for another', async () => {
  const open = [OURS];
  const { look } = qemu(open);
  open.push('9 /elsewhere.log');
  setTimeout(() => open.shift(), 60);
  expect(await look()).toMatchObject({ what: "QEMU's log was sent elsewhere" });
});

test('another file that QEMU writes is nothing to it', async () => {
  const open = [OURS];
  const { look } = qemu(open);
  open.push('9 /picture.ppm');
  expect(await look()).toBeUndefined();
});

test('a QEMU that ends has nothing open, before its answer or after', async () => {
  const open = [OURS];
  const { vm, look } = qemu(open);
  vm.qmp.execute = async () => {
    open.length = 0;
    return [];
  };
  expect(await look()).toBeUndefined();
  vm.qmp.execute = async () => Promise.reject(new Error('gone'));
  await expect(look()).rejects.toThrow('gone');
});
