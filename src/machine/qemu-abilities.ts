/** What a QEMU can do for a recording: asked of its program, or of one that runs. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isObject } from '../qmp/protocol.ts';
import { readTraceState } from './trace-control.ts';

export interface QemuAbilities {
  /** `7.2.22` */
  readonly version: string;
  /**
   * Whether it was built with the trace backend `log`, which prints events into QEMU's log. Fedora
   * and RHEL build without.
   */
  readonly tracesToLog: boolean;
  readonly traceEvents: ReadonlySet<string>;
  /** Names of vfio-pci's options; undefined if it has no such device. */
  readonly vfioPciOptions: ReadonlySet<string> | undefined;
}

/** Where distributions have it: Debian, Fedora; RHEL. */
export const QEMU_PROGRAMS = ['qemu-system-x86_64', '/usr/libexec/qemu-kvm', 'qemu-kvm'] as const;

const ANSWER_LIMIT_MS = 20_000;
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

/**
 * Asks a program, which starts no guest.
 *
 * @throws MmioError `not-found` or `refused` if it cannot be run, `protocol` if it is no QEMU
 */
export async function askProgram(program: string): Promise<QemuAbilities> {
  const version = versionIn(await run(program, ['--version']));
  if (version === undefined) {
    throw new MmioError('protocol', `${program} is no QEMU`, {
      evidence: `its --version does not say "QEMU emulator version"`,
      hint: 'name a program such as qemu-system-x86_64',
    });
  }
  const [logItems, events, options] = await Promise.all([
    run(program, ['-d', 'help']),
    run(program, ['-trace', 'help']),
    // It prints nothing but an error where it has no such device.
    run(program, ['-device', 'vfio-pci,help']).catch(() => ''),
  ]);
  const names = [...options.matchAll(/^\s+([\w-]+)=</gm)].map(([, name = '']) => name);
  return {
    version,
    tracesToLog: listsTracePatterns(logItems),
    traceEvents: new Set(events.split('\n').map((line) => line.trim())),
    vfioPciOptions: names.length === 0 ? undefined : new Set(names),
  };
}

/**
 * The version of the program that the words start, such as `7.2.22`; undefined where it does not say
 * so.
 */
export async function versionOf(command: readonly string[]): Promise<string | undefined> {
  const [program = '', ...before] = command;
  return versionIn(await run(program, [...before, '--version']).catch(() => ''));
}

/** Whether it is older than a major and minor version. */
export function isOlder(version: string, [major, minor]: readonly [number, number]): boolean {
  const [itsMajor = 0, itsMinor = 0] = version.split('.').map(Number);
  return itsMajor < major || (itsMajor === major && itsMinor < minor);
}

/** Asks a QEMU that runs. Throws what `QmpClient.execute` throws. */
export async function askRunning(qmp: QmpClient): Promise<QemuAbilities> {
  const events = await readTraceState(qmp, ['*']);
  return {
    version: qmp.version,
    tracesToLog: listsTracePatterns(await qmp.hmp('help log')),
    traceEvents: new Set(events.keys()),
    vfioPciOptions: await propertiesOf(qmp, 'vfio-pci'),
  };
}

/** Both the program and the monitor list `trace:PATTERN` only with the backend `log` (util/log.c). */
function listsTracePatterns(help: string): boolean {
  return /^trace:PATTERN\b/m.test(help);
}

function versionIn(text: string): string | undefined {
  return /^QEMU emulator version (\d+(?:\.\d+)+)/m.exec(text)?.[1];
}

async function propertiesOf(
  qmp: QmpClient,
  typename: string,
): Promise<ReadonlySet<string> | undefined> {
  try {
    const reply = await qmp.execute('device-list-properties', { typename });
    const items: readonly unknown[] = Array.isArray(reply) ? reply : [];
    return new Set(items.filter(isObject).map(({ name }) => String(name)));
  } catch (error) {
    if (error instanceof MmioError && error.code === 'refused') return undefined;
    throw error;
  }
}

/** What it prints, whatever its status: for `-d help` that is 1. */
async function run(program: string, args: readonly string[]): Promise<string> {
  try {
    const options = { timeout: ANSWER_LIMIT_MS, maxBuffer: MAX_ANSWER_BYTES };
    const { stdout } = await promisify(execFile)(program, [...args], options);
    return stdout;
  } catch (error) {
    if (isObject(error) && typeof error['stdout'] === 'string' && error['stdout'] !== '') {
      return error['stdout'];
    }
    const detail = { evidence: messageOf(error).trim(), cause: error };
    if (systemCodeOf(error) === 'ENOENT') {
      throw new MmioError('not-found', `there is no program ${program}`, {
        ...detail,
        hint: 'install it (Debian: apt install qemu-system-x86), or name another with --qemu PROGRAM',
      });
    }
    throw new MmioError('refused', `${program} ${args.join(' ')} failed`, {
      ...detail,
      hint: 'run that by hand to see why',
    });
  }
}
