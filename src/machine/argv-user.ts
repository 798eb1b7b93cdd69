import { scanArgv, type ScannedOption } from './argv-scan.ts';
import { parseOptionValue } from './option-value.ts';

/** A `-device` of the command line. */
export interface ArgvDevice {
  readonly driver: string;
  readonly id: string | undefined;
  /** `host=` as written, or the last part of `sysfsdev=`. */
  readonly host: string | undefined;
}

/** Where the user wants the lines that are not ours, and which these are. */
export interface UserLog {
  /** undefined: stderr. A `%d` in it stands for QEMU's process id, as in QEMU. */
  readonly path: string | undefined;
  /** Trace patterns as written, one that begins with `-` switches off; `*` where a file holds them. */
  readonly patterns: readonly string[];
  /** `-d` with items: lines of any shape, some of several lines. */
  readonly logItems: boolean;
}

/** Values of every option of that name, in order. */
export function valuesOf(options: readonly ScannedOption[], name: string): string[] {
  return options.flatMap((option) =>
    option.name === name && option.value !== undefined ? [option.value] : [],
  );
}

export function hasOption(options: readonly ScannedOption[], ...names: string[]): boolean {
  return options.some((option) => names.includes(option.name));
}

export function devicesOf(options: readonly ScannedOption[]): ArgvDevice[] {
  return valuesOf(options, 'device').map((value) => {
    const pairs = parseOptionValue(value, 'driver');
    const sysfs = pairs
      .get('sysfsdev')
      ?.split('/')
      .findLast((part) => part !== '');
    return {
      driver: pairs.get('driver') ?? '',
      id: pairs.get('id'),
      host: pairs.get('host') ?? sysfs,
    };
  });
}

/** undefined if the user asked for no log at all. Of several -D or -d QEMU heeds the last. */
export function userLogOf(options: readonly ScannedOption[]): UserLog | undefined {
  if (!hasOption(options, 'D', 'd', 'trace')) return undefined;
  const patterns: string[] = [];
  for (const value of valuesOf(options, 'trace')) {
    const pairs = parseOptionValue(value, 'enable');
    const pattern = pairs.get('enable');
    if (pattern !== undefined && pattern !== '') patterns.push(pattern);
    if (pairs.has('events')) patterns.push('*');
  }
  const items = valuesOf(options, 'd').at(-1)?.split(',') ?? [];
  for (const item of items) if (item.startsWith('trace:')) patterns.push(item.slice(6));
  return {
    path: valuesOf(options, 'D').at(-1),
    patterns,
    logItems: items.some((item) => !item.startsWith('trace:')),
  };
}

/** Whether QEMU will read and write the terminal that it is started on. */
export function usesTerminal(options: readonly ScannedOption[]): boolean {
  return options.some(({ name, value = '' }) => {
    switch (name) {
      case 'nographic':
      case 'curses':
        return true;
      case 'display':
        return parseOptionValue(value, 'type').get('type') === 'curses';
      case 'chardev':
        return parseOptionValue(value, 'backend').get('backend') === 'stdio';
      case 'serial':
      case 'parallel':
      case 'monitor':
      case 'debugcon':
      case 'qmp':
      case 'qmp-pretty':
      case 'gdb':
        return /^(mon:)?stdio(,|$)/.test(value);
      default:
        return false;
    }
  });
}

/**
 * File descriptors from 3 up that the command line names, such as a tap's `fd=3`: Node closes them
 * in its children unless it is told otherwise.
 */
export function inheritedFdsOf(options: readonly ScannedOption[]): number[] {
  const fds = new Set<number>();
  for (const { name, value = '' } of options) {
    if (
      !/^(add-fd|chardev|netdev|net|nic|device|object|incoming|drive|blockdev|fsdev|virtfs)$/.test(
        name,
      )
    )
      continue;
    for (const [, list = ''] of value.matchAll(/(?:^|,)(?:vhost|sock_)?fds?=([\d:]+)(?=,|$)/g)) {
      for (const fd of list.split(':')) fds.add(Number(fd));
    }
    for (const [, fd] of value.matchAll(/(?:^fd:|\/dev\/fd\/|\/proc\/self\/fd\/)(\d+)/g))
      fds.add(Number(fd));
  }
  // A descriptor that nobody opened is QEMU's to complain about; an absurd one must not cost memory.
  return [...fds].filter((fd) => fd >= 3 && fd < 1024).toSorted((a, b) => a - b);
}

/** The user that QEMU becomes, as written. */
export function runAsOf(options: readonly ScannedOption[]): string | undefined {
  const runWith = valuesOf(options, 'run-with').map((value) =>
    parseOptionValue(value, '').get('user'),
  );
  return [...runWith, ...valuesOf(options, 'runas')].findLast((user) => user !== undefined);
}

/** Whether a QEMU that was started with these words prints times; false if they are not known. */
export function stampsMessages(argv: readonly string[]): boolean {
  if (argv.length === 0) return false;
  const last = valuesOf(scanArgv(argv).options, 'msg').at(-1) ?? '';
  return /(^|,)timestamp(=on|=yes|=true)?(,|$)/.test(last);
}
