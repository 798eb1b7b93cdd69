import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { findQomFunctions } from '../../../src/machine/qom-pci.ts';
import type { QmpClient } from '../../../src/qmp/client.ts';

test('a QEMU that ends while it is asked is one failure, which reaches who asked', async () => {
  const unheard: unknown[] = [];
  const onUnheard = (error: unknown) => unheard.push(error);
  process.on('unhandledRejection', onUnheard);
  const execute = async (command: string, args: { readonly path: string }) => {
    if (command === 'qom-list' && args.path === '/machine/peripheral') {
      return [{ name: 'nic0', type: 'child<e1000>' }];
    }
    // The device is asked for at once, and fails before the other lists do.
    if (command === 'qom-list') await sleep(20);
    throw new Error(`lost while waiting for ${command}`);
  };
  await expect(findQomFunctions({ execute } as unknown as QmpClient)).rejects.toThrow('lost while');
  await sleep(40);
  process.off('unhandledRejection', onUnheard);
  expect(unheard).toEqual([]);
});
