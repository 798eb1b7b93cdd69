/**
 * The vfio-pci devices of a command line. What they need is given with `-global`, so that it
 * reaches each such device however it is made: by `-device` in either spelling, from a -readconfig
 * file, or plugged in later. A value that the user gave to one device goes before a global one.
 */
import type { ArgvChange } from './argv-change.ts';
import type { ScannedOption } from './argv-scan.ts';
import { hasOption, valuesOf } from './argv-user.ts';
import { isOn, parseOptionValue } from './option-value.ts';
import type { VfioProperty } from './vfio-properties.ts';

/** What a command line needs so that its vfio-pci devices can be recorded completely. */
export function vfioChanges(
  options: readonly ScannedOption[],
  properties: readonly VfioProperty[],
): ArgvChange[] {
  const some = hasOption(options, 'readconfig') || vfioPciOf(options).length > 0;
  if (!some) return [];
  return properties
    .filter(({ name }) => globalOf(options, name) === undefined)
    .map(({ name, why }) => ({ added: ['-global', `vfio-pci.${name}=on`], why }));
}

/** Where the user's own value leaves something out of the recording. */
export function vfioNotes(
  options: readonly ScannedOption[],
  properties: readonly VfioProperty[],
): string[] {
  return properties.flatMap(({ name, hides }) => {
    const global = globalOf(options, name);
    const off = vfioPciOf(options)
      .filter((pairs) => !isOn(pairs.get(name) ?? global ?? 'on'))
      .map((pairs) => pairs.get('id') ?? pairs.get('host') ?? 'vfio-pci');
    if (off.length === 0) return [];
    return [`${name}=off is yours and stays: ${hides} will not show (${off.join(', ')})`];
  });
}

/** Properties of each `-device vfio-pci` and its like. */
function vfioPciOf(options: readonly ScannedOption[]): ReadonlyMap<string, string>[] {
  return valuesOf(options, 'device')
    .map((value) => parseOptionValue(value, 'driver'))
    .filter((pairs) => /^vfio-pci(-nohotplug)?$/.test(pairs.get('driver') ?? ''));
}

/** The user's last `-global` for that property: `vfio-pci.x-no-mmap=off`, or its three parts. */
function globalOf(options: readonly ScannedOption[], property: string): string | undefined {
  return valuesOf(options, 'global')
    .map((value) => {
      const short = /^vfio-pci(?:-nohotplug)?\.([^=]+)=(.*)$/.exec(value);
      if (short !== null) return { property: short[1], value: short[2] };
      const pairs = parseOptionValue(value, 'driver');
      if (!/^vfio-pci(-nohotplug)?$/.test(pairs.get('driver') ?? '')) return {};
      return { property: pairs.get('property'), value: pairs.get('value') };
    })
    .findLast((global) => global.property === property)?.value;
}
