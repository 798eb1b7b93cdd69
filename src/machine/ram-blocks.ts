/** Whether a device of QEMU's has memory of its own, which the guest could reach past QEMU. */
import { MmioError } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';

/** `    0000:00:07.0:01.0/bochs-display-vram    4 KiB  0x0000…`: of a device the path, then a slash. */
const BLOCK = /^ *(.*?) +\d+ [KMG]iB +0x/;
const DEVICE = /([0-9a-f]{2}\.[0-7])\/(.*)$/;
/** Links to what lends a device memory: `memdev` of ivshmem, `pmrdev` of nvme. */
const LENDS_MEMORY = /^link<(?:memory-backend|memory-region)/;

interface Property {
  readonly name: string;
  readonly type: string;
}

/**
 * True where QEMU has no RAM for a device, by HMP `info ramblock` and its links: then all its BARs
 * are answered by QEMU, however they are mapped. False where it has some, or cannot be told.
 *
 * @throws MmioError as `QmpClient.execute`
 */
export async function hasNoMemory(
  qmp: QmpClient,
  { qomPath, devfn }: { readonly qomPath: string; readonly devfn: number },
): Promise<boolean> {
  if (qomPath === '' || devfn < 0) return false;
  const blocks = blockNames(await qmp.hmp('info ramblock'));
  if (blocks.length === 0 || blocks.includes('')) return false;
  const slot = `${(devfn >> 3).toString(16).padStart(2, '0')}.${devfn & 7}`;
  const isOurs = (name: string) => {
    const [, at, block = ''] = DEVICE.exec(name) ?? [];
    return at === slot && !block.endsWith('.rom');
  };
  if (blocks.some(isOurs)) return false;
  const properties = await qmp.execute<readonly Property[]>('qom-list', { path: qomPath });
  for (const { name } of properties.filter(({ type }) => LENDS_MEMORY.test(type))) {
    if (await isSet(qmp, qomPath, name)) return false;
  }
  return true;
}

/** Names of the blocks; the ones of `info ramblock` that have none are ''. */
export function blockNames(text: string): string[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const name = BLOCK.exec(line)?.[1];
    return name === undefined ? [] : [name];
  });
}

async function isSet(qmp: QmpClient, path: string, property: string): Promise<boolean> {
  try {
    return (await qmp.execute('qom-get', { path, property })) !== '';
  } catch (error) {
    if (error instanceof MmioError && error.code === 'refused') return true;
    throw error;
  }
}
