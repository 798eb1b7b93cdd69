import { MmioError } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isObject } from '../qmp/protocol.ts';

/** A PCI function in QEMU's object tree. */
export interface QomFunction {
  readonly path: string;
  readonly type: string;
  /** Path of the bus object that it is on. */
  readonly busPath: string;
  readonly devfn: number;
}

/** Where QEMU keeps devices: with an id, without one, and those of the machine itself. */
const CONTAINERS = ['/machine/peripheral', '/machine/peripheral-anon', '/machine/unattached'];

interface Entry {
  readonly name: string;
  readonly type: string;
}

/**
 * Finds every PCI function of the machine, also those that `query-pci` does not reach. Asks each
 * device for its PCI address, and each bus for its children: that is how the host bridge shows,
 * which is a part of another object.
 */
export async function findQomFunctions(qmp: QmpClient): Promise<readonly QomFunction[]> {
  const listed = await Promise.all(
    CONTAINERS.map(async (container) => {
      const entries = await list(qmp, container);
      const devices = entries.filter(
        ({ type }) => type.startsWith('child<') && !/memory-region|<irq>/.test(type),
      );
      // Awaited here: QEMU may end at any moment, and no failure may be without someone it reaches.
      return Promise.all(
        devices.map(({ name, type }) => ask(qmp, `${container}/${name}`, inner(type))),
      );
    }),
  );
  const found = new Map<string, QomFunction>();
  for (const one of listed.flat()) if (one) found.set(one.path, one);

  const buses = new Set([...found.values()].map(({ busPath }) => busPath));
  const children = [...buses].map(async (bus) => {
    const links = (await list(qmp, bus)).filter(({ name }) => name.startsWith('child['));
    return Promise.all(
      links.map(async ({ name, type }) => {
        const path = await get(qmp, bus, name);
        if (typeof path !== 'string' || found.has(path)) return undefined;
        return ask(qmp, path, inner(type));
      }),
    );
  });
  for (const one of (await Promise.all(children)).flat()) if (one) found.set(one.path, one);
  return [...found.values()];
}

/** Whether a PCI function has an MSI-X table, which QEMU keeps as a MemoryRegion of the function. */
export async function hasMsixTable(qmp: QmpClient, path: string): Promise<boolean> {
  const entries = path === '' ? [] : await list(qmp, path);
  return entries.some(({ name }) => name.startsWith('msix-table'));
}

/** `0000:01:00.0`, or `vfio-user:PATH` as QEMU's log names it; empty for an emulated device. */
export async function readHostAddress(qmp: QmpClient, path: string, type: string): Promise<string> {
  if (type.startsWith('vfio-user')) {
    // Its `socket` cannot be read. The memory regions of its BARs are named for it.
    const children = await list(qmp, path);
    const names = children.map(({ name }) => /^(vfio-user:.*) BAR \d\[\d+\]$/.exec(name)?.[1]);
    const name = names.find((it) => it !== undefined && !it.endsWith(' base'));
    return name === undefined ? 'vfio-user' : unescapeName(name);
  }
  if (!type.startsWith('vfio-')) return '';
  const [host, sysfs] = await Promise.all([get(qmp, path, 'host'), get(qmp, path, 'sysfsdev')]);
  // `host` is all ones when the device was given as sysfsdev=.
  if (typeof host === 'string' && /^[0-9a-f]{4,}:/.test(host) && !/^f+:ff:/.test(host)) return host;
  return typeof sysfs === 'string' ? (sysfs.split('/').findLast((part) => part !== '') ?? '') : '';
}

/** Of a memory region's name QEMU writes what its object tree cannot have as `\xNN`. */
function unescapeName(name: string): string {
  return name.replaceAll(/\\x([0-9a-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(parseInt(hex, 16)),
  );
}

/** The function at `path`, or undefined if what is there is none. */
async function ask(qmp: QmpClient, path: string, type: string): Promise<QomFunction | undefined> {
  const devfn = await devfnOf(qmp, path);
  if (devfn === undefined) return undefined;
  const busPath = await get(qmp, path, 'parent_bus');
  if (typeof busPath !== 'string' || busPath === '') return undefined;
  return { path, type, busPath, devfn };
}

async function devfnOf(qmp: QmpClient, path: string): Promise<number | undefined> {
  const address = await get(qmp, path, 'legacy-addr');
  const [, slot, func] =
    typeof address === 'string' ? (/^([0-9a-f]{2})\.([0-7])$/.exec(address) ?? []) : [];
  if (slot !== undefined) return (Number(`0x${slot}`) << 3) | Number(func);
  // QEMU 11 has no legacy-addr. Others than PCI functions may have an `addr`, but no `romfile`.
  const devfn = await get(qmp, path, 'addr');
  if (typeof devfn !== 'number' || devfn < 0 || devfn > 0xff) return undefined;
  return typeof (await get(qmp, path, 'romfile')) === 'string' ? devfn : undefined;
}

async function list(qmp: QmpClient, path: string): Promise<readonly Entry[]> {
  const reply = await unlessRefused(qmp.execute('qom-list', { path }));
  if (!Array.isArray(reply)) return [];
  return reply.filter(
    (entry: unknown): entry is Entry =>
      isObject(entry) && typeof entry['name'] === 'string' && typeof entry['type'] === 'string',
  );
}

function get(qmp: QmpClient, path: string, property: string): Promise<unknown> {
  return unlessRefused(qmp.execute('qom-get', { path, property }));
}

/** QEMU refuses what an object does not have, and objects may go while we look. */
async function unlessRefused(reply: Promise<unknown>): Promise<unknown> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof MmioError && error.code === 'refused') return undefined;
    throw error;
  }
}

/** `child<e1000>` → `e1000` */
function inner(type: string): string {
  return /<(.*)>$/.exec(type)?.[1] ?? type;
}
