import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';

/** A PCI function for a tree; what is left out is as for a plain Intel NIC without a driver. */
export interface TreeDevice {
  readonly address: string;
  readonly ids?: readonly [vendor: string, device: string];
  readonly classCode?: string;
  readonly driver?: string;
  readonly driverOverride?: string;
  readonly group?: number;
  readonly bootVga?: boolean;
  /** Lines of `resource`. */
  readonly resources?: readonly string[];
  readonly resetMethod?: string;
  /** Behind this bridge: the address of one that was added before. */
  readonly behind?: string;
}

const NO_RESOURCE = '0x0000000000000000 0x0000000000000000 0x0000000000000000';

/** A folder that looks like `/` of a host: sysfs and procfs as the kernel lays them out. */
export class SysfsTree implements Disposable {
  readonly root = mkdtempSync(join(tmpdir(), 'mmiobridge-sysfs-'));
  readonly #paths = new Map<string, string>();

  constructor() {
    this.file('sys/bus/pci/drivers_probe', '');
    for (const folder of [
      'sys/bus/pci/devices',
      'sys/bus/pci/drivers',
      'sys/kernel/iommu_groups',
    ]) {
      mkdirSync(this.path(folder), { recursive: true });
    }
  }

  path(name: string): string {
    return join(this.root, name);
  }

  text(name: string): string {
    return readFileSync(this.path(name), 'latin1');
  }

  file(name: string, text: string): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    writeFileSync(this.path(name), text);
  }

  /** A relative link, as sysfs has them. */
  link(name: string, target: string): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    symlinkSync(relative(dirname(this.path(name)), this.path(target)), this.path(name));
  }

  /** A link as procfs has them, to what need not be there. */
  absoluteLink(name: string, target: string): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    symlinkSync(target, this.path(name));
  }

  device(device: TreeDevice): void {
    const { address, ids = ['0x8086', '0x10d3'], group, driver } = device;
    const parent = this.#paths.get(device.behind ?? '') ?? 'sys/devices/pci0000:00';
    const path = `${parent}/${address}`;
    this.#paths.set(address, path);
    const resources = device.resources ?? [];
    const files = {
      vendor: ids[0],
      device: ids[1],
      subsystem_vendor: '0x1af4',
      subsystem_device: '0x1100',
      class: device.classCode ?? '0x020000',
      revision: '0x03',
      driver_override: device.driverOverride ?? '(null)',
      modalias: `pci:v0000${ids[0].slice(2).toUpperCase()}`,
      resource: [...resources, ...Array(13).fill(NO_RESOURCE)].slice(0, 13).join('\n'),
      ...(device.bootVga === undefined ? {} : { boot_vga: device.bootVga ? '1' : '0' }),
      ...(device.resetMethod === undefined ? {} : { reset: '', reset_method: device.resetMethod }),
    };
    for (const [name, text] of Object.entries(files)) this.file(`${path}/${name}`, `${text}\n`);
    this.link(`sys/bus/pci/devices/${address}`, path);
    if (group !== undefined) {
      const folder = `sys/kernel/iommu_groups/${group}`;
      this.link(`${folder}/devices/${address}`, path);
      this.link(`${path}/iommu_group`, folder);
    }
    if (driver !== undefined) this.bindTo(address, driver);
  }

  /** A whole disk behind a device, or a virtual one; parts have names, such as `vda1`. */
  disk(name: string, at: string, number: string, partitions: readonly string[] = []): void {
    const path = `${at}/block/${name}`;
    this.file(`${path}/dev`, `${number}:0\n`);
    this.link(`sys/block/${name}`, path);
    for (const [i, partition] of partitions.entries()) {
      this.file(`${path}/${partition}/dev`, `${number}:${i + 1}\n`);
      this.file(`${path}/${partition}/partition`, `${i + 1}\n`);
    }
  }

  /** A network interface; `lower` are those that it rests on. */
  networkInterface(name: string, at: string, lower: readonly string[] = []): void {
    const path = `${at}/net/${name}`;
    this.file(`${path}/operstate`, 'up\n');
    this.link(`sys/class/net/${name}`, path);
    for (const each of lower) this.link(`${path}/lower_${each}`, `sys/class/net/${each}`);
  }

  driver(name: string): void {
    for (const file of ['bind', 'unbind']) this.file(`sys/bus/pci/drivers/${name}/${file}`, '');
  }

  removeDriver(name: string): void {
    rmSync(this.path(`sys/bus/pci/drivers/${name}`), { recursive: true });
  }

  bindTo(address: string, driver: string): void {
    this.driver(driver);
    this.link(`${this.sysPath(address)}/driver`, `sys/bus/pci/drivers/${driver}`);
  }

  unbind(address: string): void {
    rmSync(this.path(`${this.sysPath(address)}/driver`), { force: true });
  }

  driverOf(address: string): string | undefined {
    try {
      return basename(readlinkSync(this.path(`${this.sysPath(address)}/driver`)));
    } catch {
      return undefined;
    }
  }

  /** Where the device is below `sys/devices`. */
  sysPath(address: string): string {
    const path = this.#paths.get(address);
    if (path === undefined) throw new Error(`the tree has no ${address}`);
    return path;
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}
