import { MmioError } from '../base/errors.ts';
import { MAX_SOCKET_PATH_BYTES } from '../base/socket-path.ts';
import type { ArgvChange } from './argv-change.ts';
import { refuseImpossible } from './argv-refuse.ts';
import type { ScannedOption } from './argv-scan.ts';
import { scanArgv } from './argv-scan.ts';
import type { ArgvDevice, UserLog } from './argv-user.ts';
import {
  devicesOf,
  hasOption,
  inheritedFdsOf,
  runAsOf,
  userLogOf,
  usesTerminal,
  valuesOf,
} from './argv-user.ts';
import { vfioChanges, vfioNotes } from './argv-vfio.ts';
import { escapeCommas, isOn, parseOptionValue } from './option-value.ts';
import { NO_MMAP, SHORT_CUTS, VFIO_PROPERTIES } from './vfio-properties.ts';

/** What a recording needs from the QEMU that it starts. */
export interface LaunchNeeds {
  /** Where QEMU shall listen for QMP; at most 107 bytes. */
  readonly qmpSocket: string;
  /** The first spool segment. */
  readonly logFile: string;
  /** Trace events or patterns to switch on. */
  readonly traceEvents: readonly string[];
  /** The plugin, and the socket on which it is to be heard. */
  readonly plugin?: { readonly path: string; readonly socket: string } | undefined;
  /** Interrupts of vfio-pci devices, too. */
  readonly interrupts: boolean;
}

export interface LaunchPlan {
  /** Program first; the user's words as they are, ours after them. */
  readonly argv: readonly string[];
  readonly changes: readonly ArgvChange[];
  /** What the user should know. */
  readonly notes: readonly string[];
  /** The user's own -S: the guest stays stopped, we must not `cont`. */
  readonly startPaused: boolean;
  /** Lines that are the user's: QEMU has one log, and it is ours now. undefined: there are none. */
  readonly userLog: UserLog | undefined;
  /** QEMU needs our terminal. */
  readonly usesStdio: boolean;
  /** File descriptors of ours that QEMU is to have under the same numbers. */
  readonly inheritedFds: readonly number[];
  readonly devices: readonly ArgvDevice[];
  readonly runAs: string | undefined;
}

/**
 * Adds to the user's QEMU command line what a recording needs. Ours goes to the end: of -D, -d and
 * -msg QEMU heeds only the last (softmmu/vl.c; seen on 7.2).
 *
 * @throws MmioError `usage`, with the reason and a way out, where an option cannot work beside ours
 */
export function planLaunch(argv: readonly string[], needs: LaunchNeeds): LaunchPlan {
  const { options } = scanArgv(argv);
  refuseImpossible(options);
  refuseBadPaths(needs);

  const startPaused = hasOption(options, 'S');
  const userLog = userLogOf(options);
  const properties = needs.interrupts ? VFIO_PROPERTIES : [NO_MMAP, ...SHORT_CUTS];
  const changes = [
    ...vfioChanges(options, properties),
    ...defaultMonitorChange(options),
    qmpChange(needs.qmpSocket),
    {
      added: ['-D', needs.logFile],
      why: "QEMU's log is what is recorded; of several -D the last one counts",
    },
    ...pluginChange(needs.plugin),
    messageChange(options),
    ...needs.traceEvents.map((event) => ({
      added: ['-trace', escapeCommas(event)],
      why: `logs the accesses that go through ${event}`,
    })),
  ];
  if (!startPaused) {
    changes.push({
      added: ['-S'],
      why: 'the guest waits until its devices have been looked at, then it is let go',
    });
  }
  return {
    argv: [...argv, ...changes.flatMap((change) => change.added)],
    changes,
    notes: [...vfioNotes(options, properties), ...notesOn(options, userLog)],
    startPaused,
    userLog,
    usesStdio: usesTerminal(options),
    inheritedFds: inheritedFdsOf(options),
    devices: devicesOf(options),
    runAs: runAsOf(options),
  };
}

function refuseBadPaths(needs: LaunchNeeds): void {
  if (needs.logFile.includes('%')) {
    throw new MmioError('usage', 'QEMU takes a % in the name of its log for a pattern', {
      evidence: needs.logFile,
      hint: 'choose a spool directory without % in its path: --spool DIR',
    });
  }
  if (Buffer.byteLength(needs.qmpSocket) > MAX_SOCKET_PATH_BYTES) {
    throw new MmioError(
      'usage',
      `the path of QEMU's socket is longer than ${MAX_SOCKET_PATH_BYTES} bytes`,
      {
        evidence: needs.qmpSocket,
        hint: 'choose a shorter session directory in MMIOBRIDGE_RUN',
      },
    );
  }
}

function qmpChange(socket: string): ArgvChange {
  return {
    added: ['-qmp', `unix:${escapeCommas(socket)},server=on,wait=off`],
    why: "a QMP monitor of our own: devices, BARs, and the log's next segment",
  };
}

function pluginChange(plugin: LaunchNeeds['plugin']): ArgvChange[] {
  if (plugin === undefined) return [];
  const value = `${escapeCommas(plugin.path)},socket=${escapeCommas(plugin.socket)}`;
  return [{ added: ['-plugin', value], why: "tells of each access of the guest's instructions" }];
}

/**
 * Any -qmp takes away the monitor that QEMU gives by default, and with -nographic Ctrl-A too. So
 * we ask for what the user would have had (`qemu_create_default_devices`, softmmu/vl.c).
 */
function defaultMonitorChange(options: readonly ScannedOption[]): ArgvChange[] {
  const hasMonitor =
    hasOption(options, 'mon', 'monitor', 'qmp', 'qmp-pretty', 'nodefaults') ||
    ['serial', 'parallel', 'debugcon'].some((name) =>
      valuesOf(options, name).some((value) => value.startsWith('mon:')),
    );
  if (hasMonitor) return [];
  const why = 'without it our -qmp would take away the monitor that QEMU gives by default';
  if (hasOption(options, 'nographic')) {
    const hasSerial =
      hasOption(options, 'serial') ||
      devicesOf(options).some(({ driver }) => driver === 'isa-serial');
    return [{ added: hasSerial ? ['-monitor', 'stdio'] : ['-serial', 'mon:stdio'], why }];
  }
  // Without a display nobody can see it.
  if (valuesOf(options, 'display').at(-1)?.startsWith('none')) return [];
  return [{ added: ['-monitor', 'vc:80Cx24C'], why }];
}

/** Each -msg sets both of its switches, to off unless it names them: the user's other one goes along. */
function messageChange(options: readonly ScannedOption[]): ArgvChange {
  const theirs = parseOptionValue(valuesOf(options, 'msg').at(-1) ?? '', 'timestamp');
  const guestName = isOn(theirs.get('guest-name')) ? ',guest-name=on' : '';
  return { added: ['-msg', `timestamp=on${guestName}`], why: "times of accesses are QEMU's own" };
}

function notesOn(options: readonly ScannedOption[], userLog: UserLog | undefined): string[] {
  const notes: string[] = [];
  const timestamp = parseOptionValue(valuesOf(options, 'msg').at(-1) ?? '', 'timestamp').get(
    'timestamp',
  );
  if (timestamp === 'off' || timestamp === 'no' || timestamp === 'false' || timestamp === 'n') {
    notes.push('-msg timestamp=off is overruled: a recording needs the time of each access');
  }
  if (userLog !== undefined) {
    const where = userLog.path === undefined ? 'standard error' : userLog.path;
    notes.push(
      `QEMU has one log, and it is the recording's: your own lines are passed on to ${where}`,
    );
  }
  if (hasOption(options, 'readconfig')) {
    notes.push(
      'devices in a -readconfig file are not seen on the command line, only in the running QEMU, which warns of a -global that it has no use for',
    );
  }
  if (hasOption(options, 'incoming')) {
    notes.push('-incoming: accesses before the migration happened elsewhere and are not recorded');
  }
  if (hasOption(options, 'loadvm')) {
    notes.push('-loadvm: accesses before the snapshot was made are not recorded');
  }
  const user = runAsOf(options);
  if (user !== undefined) {
    notes.push(`QEMU becomes ${user}: that user must be able to write in the spool directory`);
  }
  return notes;
}
