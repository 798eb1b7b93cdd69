import { MmioError } from '../../src/base/errors.ts';
import type { Kernel } from '../../src/host/kernel.ts';
import { readText } from '../../src/host/sysfs.ts';
import type { SysfsTree } from './sysfs-tree.ts';

/** What a process that is killed would never have come to. */
export class Killed extends Error {}

/** Does to a tree what the kernel's PCI core does to sysfs. */
export class FakeKernel implements Kernel {
  /** What it was asked, in order. */
  readonly asked: string[] = [];
  readonly #tree: SysfsTree;
  readonly #rules: FakeKernelRules;

  constructor(tree: SysfsTree, rules: FakeKernelRules = {}) {
    this.#tree = tree;
    this.#rules = rules;
  }

  async write(path: string, text: string): Promise<void> {
    const name = path.slice(this.#tree.root.length + 1);
    this.#ask(`${text.trim()} > ${name}`);
    const [, address = ''] = /^sys\/bus\/pci\/devices\/([^/]+)\//.exec(name) ?? [];
    const [, driver] = /^sys\/bus\/pci\/drivers\/([^/]+)\/bind$/.exec(name) ?? [];
    if (name.endsWith('/driver_override')) {
      // A written override reads back with one newline; one that was taken away as (null).
      this.#tree.file(`${this.#tree.sysPath(address)}/driver_override`, text.trim() || '(null)');
    } else if (name.endsWith('/driver/unbind')) {
      if (this.#tree.driverOf(address) === undefined) throw new Error(`ENOENT: ${path}`);
      this.#tree.unbind(address);
    } else if (name === 'sys/bus/pci/drivers_probe') {
      this.#probe(text.trim());
    } else if (driver !== undefined) {
      this.#bind(text.trim(), driver);
    } else {
      throw new Error(`ENOENT: ${path}`);
    }
  }

  async loadModule(module: string): Promise<void> {
    this.#ask(`modprobe ${module}`);
    const drivers = this.#rules.modules?.[module];
    if (drivers === undefined) throw new MmioError('refused', `cannot load the module ${module}`);
    this.#tree.driver(drivers);
  }

  #ask(what: string): void {
    if (this.asked.length === this.#rules.killedAfter) throw new Killed(what);
    this.asked.push(what);
  }

  #probe(address: string): void {
    if (this.#tree.driverOf(address) !== undefined) return;
    const name = this.#override(address) ?? this.#rules.native;
    if (name !== undefined && this.#has(name) && name !== this.#rules.broken) {
      this.#tree.bindTo(address, name);
    }
  }

  #bind(address: string, driver: string): void {
    const override = this.#override(address) ?? driver;
    if (driver === this.#rules.broken || override !== driver) {
      throw new MmioError('refused', `ENODEV: ${driver} does not take ${address}`);
    }
    this.#tree.bindTo(address, driver);
  }

  #override(address: string): string | undefined {
    const text = readText(this.#tree.path(`${this.#tree.sysPath(address)}/driver_override`));
    return text === '(null)' ? undefined : text;
  }

  #has(driver: string): boolean {
    return readText(this.#tree.path(`sys/bus/pci/drivers/${driver}/bind`)) !== undefined;
  }
}

export interface FakeKernelRules {
  /** The driver that would take the device by itself. */
  readonly native?: string;
  /** A driver whose probe fails. */
  readonly broken?: string;
  /** Drivers by the modules that bring them. */
  readonly modules?: Readonly<Record<string, string>>;
  /** It does so many things for us, and we are killed before the next. */
  readonly killedAfter?: number;
}
