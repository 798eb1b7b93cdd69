import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readNames } from '../host/sysfs.ts';
import { Check, type CheckResult } from './check.ts';
import { without } from './iommu.ts';
import { kernelWords, textOf, type System } from './system.ts';

/** As modprobe is told them; the kernel and its lists have `_` or `-`. */
const MODULES = ['vfio-pci', 'vfio_iommu_type1'];

export function checkVfioModules(system: System): readonly CheckResult[] {
  return MODULES.map((name) => checkModule(system, name));
}

function checkModule(system: System, name: string): CheckResult {
  const check = new Check('vfio-modules', `module ${name}`);
  const release = textOf(system, 'proc/sys/kernel/osrelease');
  const folder = join('lib/modules', release);
  if (existsSync(join(system.root, 'sys/module', plain(name)))) return check.ok('loaded');
  if (lists(system, join(folder, 'modules.builtin'), name))
    return check.ok('built into the kernel');
  if (!lists(system, join(folder, 'modules.dep'), name)) {
    return check.failure(
      `not loaded, and not among the modules of kernel ${release} in /${folder}`,
      'install the whole package of this kernel (Debian: linux-image-amd64, Ubuntu: linux-modules-extra-$(uname -r)),',
      'and boot the kernel that it brings: VFIO_PCI must be on or a module in its configuration',
    );
  }
  const word = kernelWords(system).find((each) => bans(each, name));
  if (word !== undefined) {
    return check.failure(`not loaded; ${word} is on the kernel's command line`, ...without(word));
  }
  if (textOf(system, 'proc/sys/kernel/modules_disabled') === '1') {
    const why = 'not loaded, and no module can be any more (kernel.modules_disabled=1)';
    return check.failure(why, `echo ${name} >>/etc/modules-load.d/vfio.conf && reboot`);
  }
  const rule = replacedBy(system, name);
  if (rule !== undefined) {
    const remedy = [`remove that line, then: modprobe ${name}`];
    return check.failure(`not loaded; modprobe runs a command instead: ${rule}`, ...remedy);
  }
  return check.ok(`not loaded; modprobe ${name} loads it`);
}

/** Whether a list of module files has it, built in or not, packed or not. */
function lists(system: System, path: string, name: string): boolean {
  const files = textOf(system, path).split('\n');
  return files.some((line) => {
    const module = /([^/:]+)\.ko(?:\.\w+)?(?::|$)/.exec(line.split(' ')[0] ?? '')?.[1];
    return module !== undefined && plain(module) === plain(name);
  });
}

function bans(word: string, name: string): boolean {
  const banned = /^module_blacklist=(.*)$/.exec(word)?.[1]?.split(',') ?? [];
  return word === 'nomodule' || banned.some((each) => plain(each) === plain(name));
}

/** `FILE: install vfio-pci /bin/false`; `blacklist` alone only keeps aliases from loading it. */
function replacedBy(system: System, name: string): string | undefined {
  for (const folder of ['etc/modprobe.d', 'run/modprobe.d', 'lib/modprobe.d']) {
    for (const file of readNames(join(system.root, folder))) {
      if (!file.endsWith('.conf')) continue;
      const path = join(folder, file);
      const line = textOf(system, path)
        .split('\n')
        .find((each) => {
          const [word, module, command = ''] = each.trim().split(/\s+/);
          const same = module !== undefined && plain(module) === plain(name);
          return word === 'install' && same && /\/(?:false|true)$/.test(command);
        });
      if (line !== undefined) return `/${path}: ${line.trim()}`;
    }
  }
  return undefined;
}

function plain(name: string): string {
  return name.replaceAll('-', '_');
}
