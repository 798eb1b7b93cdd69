import { MmioError } from '../base/errors.ts';
import type { ScannedOption } from './argv-scan.ts';
import { parseOptionValue } from './option-value.ts';

/** Options that print a list and end QEMU when asked for `help`; seen on 7.2. */
const ASKABLE = new Set(
  (
    'M accel audio audiodev chardev cpu d device display drive global machine msg net netdev nic ' +
    'object smp tpmdev trace vga'
  ).split(' '),
);
const PRINTS = new Set(['h', 'help', 'version', 'audio-help']);

/**
 * Refuses what cannot work beside a recording.
 *
 * @throws MmioError `usage` with the reason and a way out
 */
export function refuseImpossible(options: readonly ScannedOption[]): void {
  for (const option of options) {
    const written =
      option.value === undefined ? `-${option.name}` : `-${option.name} ${option.value}`;
    const refusal = refusalOf(option);
    if (refusal === undefined) continue;
    throw new MmioError('usage', refusal.reason, { evidence: written, hint: refusal.wayOut });
  }
}

interface Refusal {
  readonly reason: string;
  readonly wayOut: string;
}

function refusalOf({ name, value = '' }: ScannedOption): Refusal | undefined {
  if (PRINTS.has(name) || (ASKABLE.has(name) && asksForHelp(value))) {
    return {
      reason: 'this QEMU command line only prints help and ends: there is nothing to record',
      wayOut: 'run it without mmiobridge',
    };
  }
  switch (name) {
    case 'dump-vmstate':
      return {
        reason:
          'this QEMU command line only writes a description and ends: there is nothing to record',
        wayOut: 'run it without mmiobridge',
      };
    case 'daemonize':
      return {
        reason: 'QEMU cannot go into the background while mmiobridge looks after it',
        wayOut:
          'leave -daemonize out; or start it yourself with -qmp and attach: mmiobridge record --qmp SOCKET',
      };
    case 'preconfig':
      return {
        reason: 'with --preconfig there is no machine yet whose devices could be looked at',
        wayOut:
          'start it yourself with -qmp, build the machine, then attach: mmiobridge record --qmp SOCKET',
      };
    case 'chroot':
      return chrootRefusal;
    case 'run-with':
      return parseOptionValue(value, '').has('chroot') ? chrootRefusal : undefined;
    case 'trace':
      if (!parseOptionValue(value, 'enable').has('file')) return undefined;
      return {
        reason: 'QEMU has one log, and -trace file= would move it away from the recording',
        wayOut: 'name the file with -D instead: your own lines are passed on to it',
      };
    case 'd':
      if (!value.split(',').some((item) => item === 'tid' || item === 'all')) return undefined;
      return {
        reason:
          '`-d tid` (which `-d all` includes) gives each thread a log of its own, so that their order is lost',
        wayOut: 'name the items that you need, without tid',
      };
    default:
      return undefined;
  }
}

const chrootRefusal: Refusal = {
  reason: "after its chroot QEMU could not open the recording's next log segment",
  wayOut:
    'leave the chroot out, or start QEMU yourself and attach with --qmp SOCKET --spool DIR, DIR inside the chroot',
};

function asksForHelp(value: string): boolean {
  if (value.startsWith('{')) return false;
  const pairs = parseOptionValue(value, '');
  if (isHelp(value) || isHelp(pairs.get(''))) return true;
  // `e1000,help`; and `driver=help`, `model=help`, `type=help`, `format=help`, `trace:help`
  return (
    pairs.has('help') ||
    pairs.has('?') ||
    ['driver', 'model', 'type', 'format', 'backend', 'qom-type', 'enable', 'accel'].some((key) =>
      isHelp(pairs.get(key)),
    ) ||
    value.split(',').includes('trace:help')
  );
}

function isHelp(word: string | undefined): boolean {
  return word === 'help' || word === '?';
}
