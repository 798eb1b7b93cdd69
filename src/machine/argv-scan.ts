import { MmioError } from '../base/errors.ts';

/** One option of QEMU as the user wrote it. */
export interface ScannedOption {
  /** Without its one or two dashes; empty for a bare word, which QEMU takes for a disk image. */
  readonly name: string;
  /** The word after it, if the option takes one and there is one. */
  readonly value: string | undefined;
}

export interface ScannedArgv {
  /** Words up to and with the program, `sudo` and the like included. */
  readonly command: readonly string[];
  readonly options: readonly ScannedOption[];
}

/**
 * Options that take no argument. QEMU 7.2 itself told: given `-NAME -y1 -y2` it complains about
 * `-y1` where NAME takes none. The second line is of other releases.
 */
const NO_ARGUMENT = new Set(
  (
    'S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help ' +
    'mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults ' +
    'nographic only-migratable portrait preconfig s singlestep snapshot usb version win2k-hack ' +
    'xen-attach xen-domid-restrict ' +
    'alt-grab ctrl-grab curses enable-fips no-frame no-kvm no-quit nodefconfig nouserconfig sdl'
  ).split(' '),
);

/** Options of QEMU 7.2 that take one, whatever it looks like: `-append -D` has no `-D` in it. */
const ONE_ARGUMENT = new Set(
  (
    'D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev ' +
    'chroot compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb ' +
    'fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m ' +
    'machine mem-path mon monitor msg mtdblock name net netdev nic numa object option-rom ' +
    'overcommit parallel pflash pidfile plugin qmp qmp-pretty qtest qtest-log readconfig rotate ' +
    'rtc run-with runas sandbox sd seed serial set smbios smp spice tpmdev trace usbdevice uuid ' +
    'vga virtfs vnc watchdog watchdog-action xen-domid'
  ).split(' '),
);

const WRAPPERS = new Set(
  (
    'sudo doas env nice ionice taskset numactl chrt stdbuf strace gdb valgrind time runuser ' +
    'prlimit systemd-run perf'
  ).split(' '),
);
const QEMU_NAME = /^(qemu-system-[\w-]+|qemu-kvm|kvm|qemu)$/;

const EXAMPLE =
  'for example: mmiobridge record -- qemu-system-x86_64 -m 2G -device vfio-pci,host=…';

/**
 * Splits a QEMU command line into options as QEMU's own `lookup_opt` (softmmu/vl.c) does. An
 * option that we do not know takes the next word unless that begins with a dash.
 *
 * @throws MmioError `usage` if there is no program, a word that no program can be given, or a last
 *   option without its value
 */
export function scanArgv(argv: readonly string[]): ScannedArgv {
  const start = programIndex(argv);
  const options: ScannedOption[] = [];
  for (let at = start + 1; at < argv.length; at++) {
    const word = argv[at] ?? '';
    if (!word.startsWith('-')) {
      options.push({ name: '', value: word });
      continue;
    }
    const name = word.slice(word.startsWith('--') ? 2 : 1);
    const next = argv[at + 1];
    const takesNext =
      ONE_ARGUMENT.has(name) || (!NO_ARGUMENT.has(name) && next?.startsWith('-') === false);
    if (takesNext && next === undefined) {
      // Left alone, it would swallow the first word that we add.
      throw new MmioError('usage', 'the last option of the QEMU command line lacks its value', {
        evidence: word,
        hint: 'give it one, or leave the option out',
      });
    }
    options.push({ name, value: takesNext ? next : undefined });
    if (takesNext) at++;
  }
  return { command: argv.slice(0, start + 1), options };
}

function programIndex(argv: readonly string[]): number {
  const program = argv[0];
  if (program === undefined || program === '') {
    throw new MmioError('usage', 'there is no QEMU command line', {
      evidence: 'nothing follows --',
      hint: EXAMPLE,
    });
  }
  if (program.startsWith('-')) {
    throw new MmioError('usage', 'the QEMU command line begins with an option, not a program', {
      evidence: program,
      hint: EXAMPLE,
    });
  }
  if (/^[A-Za-z_]\w*=/.test(program)) {
    throw new MmioError('usage', 'the QEMU command line begins with a variable, not a program', {
      evidence: program,
      hint: `set it with env: mmiobridge record -- env ${program.split('=', 1)[0] ?? ''}=… qemu-system-x86_64 …`,
    });
  }
  const zero = argv.findIndex((word) => word.includes('\0'));
  if (zero >= 0) {
    throw new MmioError('usage', `word ${zero + 1} of the QEMU command line holds a zero byte`, {
      evidence: JSON.stringify(argv[zero]),
      hint: 'no program can be given such a word',
    });
  }
  if (!WRAPPERS.has(baseName(program))) return 0;
  const inner = argv.findIndex((word) => QEMU_NAME.test(baseName(word)));
  return Math.max(inner, 0);
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
