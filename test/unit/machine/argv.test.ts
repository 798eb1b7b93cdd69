import { execFileSync } from 'node:child_process';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { planLaunch, type LaunchPlan } from '../../../src/machine/argv.ts';
import { formatDryRun } from '../../../src/machine/dry-run.ts';

const NEEDS = {
  qmpSocket: '/run/s/qmp.sock',
  logFile: '/run/s/spool/000001',
  traceEvents: ['vfio_region_read', 'pci_update_mappings_*'],
  interrupts: true,
};

function plan(...args: string[]): LaunchPlan {
  return planLaunch(['qemu-system-x86_64', ...args], NEEDS);
}

function added(made: LaunchPlan): string[] {
  return made.changes.flatMap((change) => change.added);
}

function refusal(...args: string[]): MmioError {
  try {
    plan(...args);
  } catch (error) {
    if (error instanceof MmioError) return error;
  }
  throw new Error(`not refused: ${args.join(' ')}`);
}

describe('what is added', () => {
  it('comes after the words of the user, which stay as they are', () => {
    const theirs = ['qemu-system-x86_64', '-m', '64', '-D', 'x', '-append', '-S', 'disk.img', ''];
    expect(planLaunch(theirs, NEEDS).argv.slice(0, theirs.length)).toEqual(theirs);
  });

  it('is a monitor, the log, its times, the events and a stop', () => {
    expect(added(plan('-display', 'none'))).toEqual([
      '-qmp',
      'unix:/run/s/qmp.sock,server=on,wait=off',
      '-D',
      '/run/s/spool/000001',
      '-msg',
      'timestamp=on',
      '-trace',
      'vfio_region_read',
      '-trace',
      'pci_update_mappings_*',
      '-S',
    ]);
  });

  it('has commas doubled where QEMU splits at them, and only there', () => {
    const made = planLaunch(['qemu'], { ...NEEDS, qmpSocket: '/a,b', logFile: '/c,d' });
    expect(made.argv).toContain('unix:/a,,b,server=on,wait=off');
    expect(made.argv).toContain('/c,d');
  });

  it.each([
    [[], ['-monitor', 'vc:80Cx24C']],
    [['-display', 'none'], undefined],
    [['-nodefaults'], undefined],
    [['-qmp', 'stdio'], undefined],
    [['-mon', 'chardev=x'], undefined],
    [['-serial', 'mon:stdio'], undefined],
    [['-nographic'], ['-serial', 'mon:stdio']],
    [
      ['-nographic', '-serial', 'null'],
      ['-monitor', 'stdio'],
    ],
    [['-nographic', '-serial', 'mon:stdio'], undefined],
    [['-nographic', '-monitor', 'none'], undefined],
  ])('gives back the default monitor that our own takes away: %j', (args, expected) => {
    const change = plan(...args).changes.find(({ why }) => why.includes('by default'));
    expect(change?.added).toEqual(expected);
  });

  it('refuses paths that QEMU cannot take', () => {
    expect(() => planLaunch(['qemu'], { ...NEEDS, logFile: '/a%d' })).toThrow(/%/);
    expect(() => planLaunch(['qemu'], { ...NEEDS, qmpSocket: `/${'é'.repeat(54)}` })).toThrow(
      /107/,
    );
  });
});

describe("the user's own options", () => {
  it.each([
    [['-S'], true],
    [['--S'], true],
    [['-append', '-S'], false],
    [['-no-reboot', '-S'], true],
    [['-future-switch', '-S'], true],
    [['-future-option', 'x', '-S'], true],
    [['-s'], false],
  ])('-S is respected, where it is an option: %j', (args, paused) => {
    const made = plan(...args);
    expect(made.startPaused).toBe(paused);
    expect(added(made).includes('-S')).toBe(!paused);
  });

  it.each([
    [['-msg', 'guest-name=on'], 'timestamp=on,guest-name=on'],
    [['--msg', 'timestamp=off,guest-name=yes'], 'timestamp=on,guest-name=on'],
    [['-msg', 'guest-name=off'], 'timestamp=on'],
    [['-msg', 'guest-name=on', '-msg', 'timestamp=on'], 'timestamp=on'],
  ])('-msg is merged: %j', (args, merged) => {
    const words = added(plan(...args));
    expect(words[words.indexOf('-msg') + 1]).toBe(merged);
  });

  it('says that -msg timestamp=off is overruled', () => {
    expect(plan('-msg', 'timestamp=off').notes.join()).toContain('timestamp=off is overruled');
    expect(plan('-msg', 'timestamp=on').notes).toEqual([]);
  });

  it.each([
    [[], undefined],
    [['-D', 'u.log'], { path: 'u.log', patterns: [], logItems: false }],
    [['-D', 'a', '--D', '-b'], { path: '-b', patterns: [], logItems: false }],
    [['-d', 'int,unimp'], { path: undefined, patterns: [], logItems: true }],
    [['-d', 'int', '-d', 'trace:pci_*'], { path: undefined, patterns: ['pci_*'], logItems: false }],
    [
      ['-trace', 'a', '--trace', 'enable=b*'],
      { path: undefined, patterns: ['a', 'b*'], logItems: false },
    ],
    [['-trace', 'events=/f,,g'], { path: undefined, patterns: ['*'], logItems: false }],
    [['-trace', 'enable=-x,events=f'], { path: undefined, patterns: ['-x', '*'], logItems: false }],
    [['-append', '-D', '-name', '-trace'], undefined],
  ])('their log lines are passed on: %j', (args, userLog) => {
    const made = plan(...args);
    expect(made.userLog).toEqual(userLog);
    expect(made.notes.join().includes('passed on')).toBe(userLog !== undefined);
  });

  it.each([
    [['-nographic'], true],
    [['-curses'], true],
    [['-serial', 'stdio'], true],
    [['-serial', 'mon:stdio'], true],
    [['-monitor', 'stdio'], true],
    [['-gdb', 'stdio'], true],
    [['-chardev', 'stdio,id=c,mux=on'], true],
    [['-chardev', 'id=c,backend=stdio'], true],
    [['-display', 'curses,charset=CP437'], true],
    [['-display', 'none'], false],
    [['-chardev', 'file,id=stdio,path=stdio'], false],
    [['-serial', 'file:stdio'], false],
    [['-name', '-nographic'], false],
  ])('whether QEMU needs the terminal: %j', (args, expected) => {
    expect(plan(...args).usesStdio).toBe(expected);
  });

  it('-device is read in both spellings', () => {
    const made = plan(
      '-device',
      'vfio-pci,host=01:00.0,id=gpu',
      '--device',
      '{"driver":"vfio-pci","host":"0000:02:00.0","id":"nic,1"}',
      '-device',
      'id=a,,b,driver=e1000',
      '-device',
      'vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:03:00.0/',
      '-device',
      '{broken',
    );
    expect(made.devices).toEqual([
      { driver: 'vfio-pci', id: 'gpu', host: '01:00.0' },
      { driver: 'vfio-pci', id: 'nic,1', host: '0000:02:00.0' },
      { driver: 'e1000', id: 'a,b', host: undefined },
      { driver: 'vfio-pci', id: undefined, host: '0000:03:00.0' },
      { driver: '', id: undefined, host: undefined },
    ]);
  });

  it('-runas is reported', () => {
    expect(plan('-runas', 'nobody').runAs).toBe('nobody');
    expect(plan('-run-with', 'async-teardown=on,user=qemu').runAs).toBe('qemu');
    expect(plan('-run-with', 'async-teardown=on').runAs).toBeUndefined();
  });

  it('file descriptors that they name are handed on', () => {
    const made = plan(
      '-netdev',
      'tap,id=n,fds=5:6,vhostfds=7:8',
      '-add-fd',
      'fd=3,set=1',
      '-incoming',
      'fd:4',
    );
    expect(made.inheritedFds).toEqual([3, 4, 5, 6, 7, 8]);
    expect(plan('-netdev', 'tap,id=n,fd=tapfd', '-m', '64').inheritedFds).toEqual([]);
  });

  it.each(['-readconfig', '-incoming', '-loadvm'])('%s goes through, with a note', (option) => {
    expect(plan(option, 'x').notes).toHaveLength(1);
  });

  it('what does not concern a recording goes through without a word', () => {
    const args = [
      '-no-reboot',
      '-pidfile',
      'p',
      '-sandbox',
      'on,spawn=deny',
      '-snapshot',
      '-qmp',
      'unix:q',
      '-monitor',
      'none',
    ];
    expect(plan(...args).notes).toEqual([]);
  });
});

describe('what is refused', () => {
  it.each([
    [['-daemonize'], /background/, /--qmp/],
    [['--daemonize'], /background/, /--qmp/],
    [['-preconfig'], /no machine yet/, /--qmp/],
    [['-chroot', '/x'], /segment/, /--spool/],
    [['-run-with', 'chroot=/x'], /segment/, /--spool/],
    [['-trace', 'pci_*,file=t.log'], /one log/, /-D/],
    [['-trace', 'file=t.log'], /one log/, /-D/],
    [['-d', 'tid'], /tid/, /without tid/],
    [['-d', 'all'], /tid/, /without tid/],
    [['-dump-vmstate', 'f'], /nothing to record/, /without mmiobridge/],
    ...[
      ['-h'],
      ['--help'],
      ['-version'],
      ['-device', 'help'],
      ['-device', 'e1000,help'],
      ['-machine', 'help'],
      ['-M', '?'],
      ['-d', 'trace:help'],
      ['-nic', 'model=help'],
    ].map((args) => [args, /only prints help/, /without mmiobridge/] as const),
  ] as const)('%j, with the reason and a way out', (args, reason, wayOut) => {
    const error = refusal('-m', '64', ...args);
    expect(error.code).toBe('usage');
    expect(error.message).toMatch(reason);
    expect(error.hint).toMatch(wayOut);
    expect(error.evidence).toContain(args[0].replace('--', '-'));
  });

  it.each([
    [['-name', 'help']],
    [['-append', '-daemonize']],
    [['-append', 'help']],
    [['-trace', 'profile=x']],
    [['-trace', 'a,,file=b']],
    [['-kernel', '--help']],
    [['-d', 'int']],
  ])('and not what only looks like it: %j', (args) => {
    expect(() => plan(...args)).not.toThrow();
  });

  it.each([[[]], [['']], [['-m', '64']], [['A=1', 'qemu']], [['qemu', 'a\0b']]])(
    'no command line at all: %j',
    (argv) => {
      expect(() => planLaunch(argv, NEEDS)).toThrow(MmioError);
    },
  );

  it('a last option without its value, which would swallow what we add', () => {
    expect(refusal('-m', '64', '-name').evidence).toBe('-name');
  });

  it('looks behind sudo and the like for QEMU', () => {
    const made = planLaunch(
      ['sudo', '-S', '-u', 'x', '/usr/bin/qemu-system-x86_64', '-m', '64'],
      NEEDS,
    );
    expect(made.startPaused).toBe(false);
  });
});

describe('passed-through devices', () => {
  const GLOBALS = ['x-no-mmap', 'x-no-kvm-ioeventfd', 'x-no-vfio-ioeventfd'];
  const IRQS = ['x-no-kvm-intx', 'x-no-kvm-msi', 'x-no-kvm-msix'];
  const globalsOf = (made: LaunchPlan) =>
    added(made).flatMap((word) => /^vfio-pci\.(.*)=on$/.exec(word)?.[1] ?? []);

  it.each([
    [['-device', 'vfio-pci,host=01:00.0']],
    [['-device', 'vfio-pci-nohotplug,host=01:00.0']],
    [['-device', 'driver=vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:01:00.0']],
    [['-device', '{"driver":"vfio-pci","host":"0000:01:00.0"}']],
    [['-readconfig', 'vm.cfg']],
  ])('%j is made to trap all accesses, and interrupts', (args) => {
    const made = plan(...args);
    expect(globalsOf(made)).toEqual([...GLOBALS, ...IRQS]);
    expect(made.argv.slice(1, 3)).toEqual(args);
  });

  it('keep their interrupts in the kernel if that is wanted', () => {
    const argv = ['qemu', '-device', 'vfio-pci,host=01:00.0'];
    const made = planLaunch(argv, { ...NEEDS, interrupts: false });
    expect(globalsOf(made)).toEqual(GLOBALS);
  });

  it.each([[[]], [['-device', 'e1000e']], [['-device', 'vfio-user-pci,socket=x']]])(
    'are none in %j',
    (args) => {
      expect(globalsOf(plan(...args))).toEqual([]);
    },
  );

  it("keep the user's own value, which is told", () => {
    const made = plan(
      '-device',
      'vfio-pci,host=01:00.0,x-no-mmap=off,id=gpu',
      '-device',
      'vfio-pci,host=02:00.0',
    );
    expect(globalsOf(made)).toContain('x-no-mmap');
    expect(made.notes).toEqual([
      'x-no-mmap=off is yours and stays: accesses to BARs that are mapped into the guest will not show (gpu)',
    ]);
  });

  it.each(['vfio-pci.x-no-mmap=off', 'driver=vfio-pci,property=x-no-mmap,value=off'])(
    "keep the user's own -global %s, which is told",
    (value) => {
      const made = plan('-global', value, '-device', 'vfio-pci,host=01:00.0');
      expect(globalsOf(made)).toEqual([...GLOBALS.slice(1), ...IRQS]);
      expect(made.notes.join()).toContain('x-no-mmap=off is yours and stays');
    },
  );

  it('say why in the dry run', () => {
    expect(formatDryRun(plan('-device', 'vfio-pci,host=01:00.0'))).toContain(
      '# -global vfio-pci.x-no-mmap=on: each access to a BAR comes to QEMU instead of going',
    );
  });
});

describe('the dry run', () => {
  it('has one option a line, then each addition and why', () => {
    const text = formatDryRun(plan('-m', '64', '-no-reboot', '-display', 'none', "it's"));
    expect(text.split('\n').slice(0, 6)).toEqual([
      'qemu-system-x86_64 \\',
      '  -m 64 \\',
      '  -no-reboot \\',
      '  -display none \\',
      String.raw`  'it'\''s' \ `.trimEnd(),
      '  -qmp unix:/run/s/qmp.sock,server=on,wait=off \\',
    ]);
    expect(text).toMatch(/^# -D \/run\/s\/spool\/000001: QEMU's log is what is recorded/m);
  });

  it('pasted into a shell gives the same words', () => {
    const word = fc.oneof(
      fc.string({ unit: fc.constantFrom(...Array.from('-a\'"\\$`\n\t *?[]{}~#!&|;<>()=,é%@')) }),
      fc.constantFrom('-append', '-name', '-snapshot', '', '~', '#x', 'a=b'),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), fc.boolean(), (words, log) => {
        const argv = ['qemu', '-snapshot', ...words.flatMap((text) => ['-append', text])];
        if (log) argv.push('-D', words.join(''));
        const made = planLaunch(argv, NEEDS);
        expect(readBack(formatDryRun(made))).toEqual(made.argv);
      }),
      { numRuns: 150 },
    );
  });
});

/** The words as a shell that the text is pasted into hands them to the program. */
function readBack(text: string): string[] {
  const script = `show() { for word; do printf '%s\\0' "$word"; done; }\nshow ${text}`;
  return execFileSync('sh', ['-c', script], { encoding: 'utf8' }).split('\0').slice(0, -1);
}
