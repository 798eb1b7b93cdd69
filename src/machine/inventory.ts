import type { Device } from '../model/device.ts';
import type { QmpClient } from '../qmp/client.ts';
import { findQomFunctions, readHostAddress, type QomFunction } from './qom-pci.ts';
import { parseQtree } from './qtree.ts';
import { emptyBars, readQueryPci, type PciInfo } from './query-pci.ts';

/** `bus` of a function behind a bridge that firmware has not given a bus number yet. */
export const NO_BUS = -1;

/**
 * A PCI function of the guest, as QEMU has it now: what QMP tells of a `Device`. `bus` may be
 * `NO_BUS`; `hostAddress` is `vfio-user:PATH` for vfio-user-pci; of `classCode` QEMU tells the upper
 * 16 bits; a BAR's `start` is 0 while unassigned.
 */
export interface PciFunction extends Omit<Device, 'id' | 'name' | 'driver'> {
  /** In QEMU's object tree; empty if not found. */
  readonly qomPath: string;
}

/**
 * The PCI functions of a VM, in the order of `query-pci`, then those which it cannot reach. Before
 * firmware runs (`-S`), what is behind bridges is only in QEMU's object tree and `info qtree`:
 * `bus` is then `NO_BUS`, and of BAR flags only I/O is known. Ask again when the guest is up.
 * Throws what `QmpClient.execute` throws.
 */
export async function readInventory(qmp: QmpClient): Promise<readonly PciFunction[]> {
  let all = await look(qmp);
  // Firmware has numbered a bus between two of our questions: the answers do not fit together.
  for (let again = 0; again < RETRIES && all.some(({ torn }) => torn); again++)
    all = await look(qmp);
  return Promise.all(
    all.map(async ({ info, object }) => ({
      ...info,
      type: object?.type ?? '',
      hostAddress: object === undefined ? '' : await readHostAddress(qmp, object.path, object.type),
      qomPath: object?.path ?? '',
    })),
  );
}

const RETRIES = 3;

interface Found {
  readonly info: Described;
  readonly object: QomFunction | undefined;
  /** `query-pci` did not reach it, and a moment later it had a bus number. */
  readonly torn: boolean;
}

async function look(qmp: QmpClient): Promise<readonly Found[]> {
  const [reply, qom] = await Promise.all([qmp.execute('query-pci'), findQomFunctions(qmp)]);
  const found = pair(readQueryPci(reply), qom);
  const reached = new Set(found.map(({ object }) => object));
  const hidden = qom.filter((object) => !reached.has(object));
  const more = hidden.length === 0 ? [] : await describeHidden(qmp, hidden);
  return [
    ...found.map(({ info, object }) => ({ info: fields(info), object, torn: false })),
    ...more,
  ];
}

type Described = Omit<PciFunction, 'type' | 'hostAddress' | 'qomPath'>;

interface Pair {
  readonly info: PciInfo;
  readonly object: QomFunction | undefined;
}

function fields(info: PciInfo): Described {
  const { qemuId, bus, devfn, vendorId, deviceId, classCode, irq, bars } = info;
  return { qemuId, bus, devfn, vendorId, deviceId, classCode, irq, bars };
}

/** Puts `query-pci`'s tree and the object tree on top of each other. */
function pair(roots: readonly (readonly PciInfo[])[], qom: readonly QomFunction[]): Pair[] {
  const paths = new Set(qom.map(({ path }) => path));
  const rootBuses = new Set(
    qom.map(({ busPath }) => busPath).filter((busPath) => !paths.has(ownerOf(busPath))),
  );
  const pairs: Pair[] = [];

  function descend(infos: readonly PciInfo[], onBus: (busPath: string) => boolean): void {
    for (const info of infos) {
      const object = qom.find((it) => onBus(it.busPath) && isSame(info, it));
      pairs.push({ info, object });
      descend(info.behind, (busPath) => ownerOf(busPath) === object?.path);
    }
  }

  for (const infos of roots) {
    // QEMU names no bus in both places: the one that fits best is it.
    const [best] = [...rootBuses].toSorted((a, b) => fit(infos, b, qom) - fit(infos, a, qom));
    if (best !== undefined) rootBuses.delete(best);
    descend(infos, (busPath) => busPath === best);
  }
  return pairs;
}

/** How many functions are on both, less those that are on one. */
function fit(infos: readonly PciInfo[], busPath: string, qom: readonly QomFunction[]): number {
  const objects = qom.filter((object) => object.busPath === busPath);
  const both = infos.filter((info) => objects.some((object) => isSame(info, object))).length;
  return 3 * both - infos.length - objects.length;
}

function isSame(info: PciInfo, object: QomFunction): boolean {
  return info.devfn === object.devfn && info.qemuId === idOf(object.path);
}

function idOf(path: string): string {
  return /^\/machine\/peripheral\/([^/]+)$/.exec(path)?.[1] ?? '';
}

/** The bridge, or host bridge, that a bus is a part of. */
function ownerOf(busPath: string): string {
  return busPath.slice(0, busPath.lastIndexOf('/'));
}

async function describeHidden(
  qmp: QmpClient,
  hidden: readonly QomFunction[],
): Promise<readonly Found[]> {
  const printed = parseQtree(await qmp.hmp('info qtree'));
  return hidden.map((object) => {
    const busName = object.busPath.slice(object.busPath.lastIndexOf('/') + 1);
    const slot = (object.devfn >> 3).toString(16).padStart(2, '0');
    const address = `${slot}.${object.devfn & 7}`;
    const line = printed.find((it) => it.busName === busName && it.address === address);
    const bus = line === undefined || line.bus === 0 ? NO_BUS : line.bus;
    const info = {
      qemuId: idOf(object.path),
      bus,
      devfn: object.devfn,
      vendorId: line?.vendorId ?? 0,
      deviceId: line?.deviceId ?? 0,
      classCode: line?.classCode ?? 0,
      irq: 0,
      bars: line?.bars ?? emptyBars(),
    };
    return { info, object, torn: bus !== NO_BUS };
  });
}
