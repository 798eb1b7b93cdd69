import { execFileSync } from 'node:child_process';
import {
  existsSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../src/qmp/client.ts';
import { Workplace, run, start, type CliResult } from '../support/cli.ts';
import { isListening, SYSTEM_QEMU, qemuVersions } from '../support/qemu.ts';
import { scriptPath, words } from '../support/scripts.ts';
import { until } from '../support/soon.ts';

const SCRIPT = scriptPath('windows-guest.sh');
/** Small and without KVM: whether QEMU takes the options does not depend on it. */
const SMALL = words('--tcg --memory 512M --cpus 2 --display none');

let place: Workplace;

beforeEach(() => {
  place = new Workplace();
  for (const name of ['win.raw', 'setup, and more.iso', 'virtio.iso']) {
    writeFileSync(place.path(name), '');
    truncateSync(place.path(name), 4 << 20);
  }
});
afterEach(() => place[Symbol.asyncDispose]());

function script(args: readonly string[]): Promise<CliResult> {
  return run(SCRIPT, args, { cwd: place.dir, env: { MMIOBRIDGE_RUN: place.runDir } });
}

async function printed(args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await script(['--print', ...args]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

/** The words as a shell takes them, of the command of which `program` is the first word. */
function describeError(commands: string, program: string): string[] {
  const show = `${program}() { printf '%s\\n' "$@"; }`;
  const others = ['mkdir', 'cp', 'swtpm', 'node', SYSTEM_QEMU].filter((name) => name !== program);
  const quiet = others.map((name) => `${name}() { :; }`).join('\n');
  // bash: a function's name with a dash is not POSIX.
  const out = execFileSync('bash', ['-c', `${quiet}\n${show}\n${commands}`], { encoding: 'utf8' });
  return out.trimEnd().split('\n');
}

/** The values of an option that may be there several times. */
function values(argv: readonly string[], option: string): string[] {
  return argv.filter((_, at) => argv[at - 1] === option);
}

describe('--print', () => {
  it('shows commands that a shell takes back word for word, and makes nothing', async () => {
    const disk = "it's my disk.qcow2";
    const commands = await printed(['--disk', disk, '--iso', 'a, $b.iso', '--qemu-arg', '-S']);
    const argv = describeError(commands, SYSTEM_QEMU);
    const drives = values(argv, '-drive');
    expect(drives).toContain("if=none,id=disk,format=qcow2,discard=unmap,file=it's my disk.qcow2");
    expect(drives.at(-1)).toMatch(/media=cdrom.*,file=a,, \$b\.iso$/);
    expect(argv.at(-1)).toBe('-S');
    expect(existsSync(place.path(`${disk}.state`))).toBe(false);
  });

  it('puts what stands behind -- before QEMU, as options of mmiobridge record', async () => {
    const commands = await printed(['--disk', 'win.raw', '--', '--irq', '-o', 'my trace.mmiocap']);
    const argv = describeError(commands, 'node');
    expect(argv.slice(1, 7)).toEqual([
      'record',
      '--irq',
      '-o',
      'my trace.mmiocap',
      '--',
      SYSTEM_QEMU,
    ]);
  });

  it('keeps the functions of a card together behind a root port of their own', async () => {
    const devices = ['01:00.0,romfile=vbios.rom', '0000:01:00.1', '0000:02:00.1'];
    const args = ['--disk', 'win.raw', ...devices.flatMap((device) => ['--device', device])];
    const argv = describeError(await printed(args), SYSTEM_QEMU);
    const passed = values(argv, '-device').filter((value) => /^(vfio|pcie)/.test(value));
    expect(passed).toEqual([
      'pcie-root-port,id=port-0000-01-00,chassis=1',
      'vfio-pci,host=0000:01:00.0,id=vfio0,bus=port-0000-01-00,addr=0.0,multifunction=on,romfile=vbios.rom',
      'vfio-pci,host=0000:01:00.1,id=vfio1,bus=port-0000-01-00,addr=0.1,multifunction=on',
      // Alone, it is function 0 of its card: else the guest would not look for it.
      'pcie-root-port,id=port-0000-02-00.1,chassis=2',
      'vfio-pci,host=0000:02:00.1,id=vfio2,bus=port-0000-02-00.1,addr=0.0,multifunction=on',
    ]);
  });

  it('has a CPU that hides KVM, or does without AVX, when asked', async () => {
    const cpu = async (...args: string[]): Promise<string> => {
      const argv = describeError(await printed(['--disk', 'win.raw', ...args]), SYSTEM_QEMU);
      return values(argv, '-cpu').join();
    };
    expect(await cpu()).toMatch(/^host,.*hv-time=on/);
    expect(await cpu()).not.toMatch(/kvm=off|avx=off/);
    expect(await cpu('--hide-kvm')).toContain(',kvm=off,hv-vendor-id=');
    expect(await cpu('--no-avx')).toContain(',avx=off,avx2=off');
  });
});

describe.each(qemuVersions())('QEMU $version', ({ version, path }) => {
  it.each([
    ['with drivers of its own', []],
    ['with virtio', ['--virtio-iso', 'virtio.iso', '--iso', 'setup, and more.iso', '--no-avx']],
    ['without Secure Boot and TPM', ['--no-secure-boot', '--no-tpm', '--no-net']],
  ])(`takes every option %s`, async (_, args) => {
    const base = ['--disk', 'win.raw', ...SMALL, '--qemu', path, '--qemu-arg', '-S'];
    const guest = start(SCRIPT, [...base, ...args], { cwd: place.dir });
    try {
      const socket = place.path('win.raw.state/qmp.sock');
      await until('QMP', () => isListening(socket) || guest.child.exitCode !== null);
      expect(guest.stderr()).toBe('');
      await using qmp = await QmpClient.connect(`unix:${socket}`);
      const { qemu } = await qmp.execute<{ qemu: { major: number; minor: number } }>(
        'query-version',
      );
      expect(`${qemu.major}.${qemu.minor}`).toBe(version);
      const tpms = await qmp.execute<{ model: string }[]>('query-tpm');
      expect(tpms.map(({ model }) => model)).toEqual(args.includes('--no-tpm') ? [] : ['tpm-crb']);
      await qmp.execute('quit');
      expect(await guest.exited).toEqual({ status: 0, signal: null });
      // QEMU says here what it only tolerates.
      expect(guest.stderr()).toBe('');
    } finally {
      await guest.kill();
    }
  });
});

describe('a recording', () => {
  it("has what UEFI's own driver says to the network card, through mmiobridge record", async () => {
    const args = ['--disk', 'win.raw', ...SMALL, '--', '--device', 'nic', '-o', 'nic.mmiotrace'];
    const guest = start(SCRIPT, args, {
      cwd: place.dir,
      env: { MMIOBRIDGE_RUN: place.runDir },
    });
    try {
      const text = (): string =>
        existsSync(place.path('nic.mmiotrace')) ? place.text('nic.mmiotrace') : '';
      await until('accesses', () => /^W 4 /m.test(text()));
      process.kill(guest.pid, 'SIGINT');
      expect((await guest.exited).status).toBe(130);
      expect(text()).toMatch(/^PCIDEV [0-9a-f]{4} 808610d3 /m);
    } finally {
      await guest.kill();
    }
    // The guest's own variables were written, not the package's.
    const vars = place.path('win.raw.state/vars-secure-boot.fd');
    expect(readFileSync(vars)).not.toEqual(readFileSync('/usr/share/OVMF/OVMF_VARS_4M.ms.fd'));
    expect(statSync(place.path('win.raw.state/tpm/tpm2-00.permall')).size).toBeGreaterThan(0);
  });
});

describe('a guest with much memory', () => {
  it('is waited for until QEMU has made it, longer than another QMP peer', async () => {
    // A QEMU that listens and is then busy: with 64 GiB of memory a real one is for that long.
    const busy = place.path('busy-qemu');
    const wait = `until [ -S ${place.runDir}/*/qmp.sock ]; do sleep 0.01; done`;
    writeFileSync(
      busy,
      `#!/bin/sh\n${SYSTEM_QEMU} "$@" &\n${wait}\nkill -STOP $!\nsleep 6\nkill -CONT $!\nwait $!\n`,
      { mode: 0o755 },
    );
    const args = ['--disk', 'win.raw', ...SMALL, '--no-tpm', '--no-secure-boot', '--qemu', busy];
    const { status, stderr } = await script([...args, '--', '--duration', '1', '--device', 'nic']);
    expect(stderr).not.toContain('no greeting');
    expect(status, stderr).toBe(0);
  });
});

describe('what is missing is said, with a way out', () => {
  it.each([
    [['--iso', 'x.iso'], 2, 'name the disk', '--help'],
    [['--disk', 'none.qcow2'], 1, 'cannot read the disk none.qcow2', 'qemu-img create'],
    [['--disk', 'win.raw', '--ovmf-code', '/none', '--ovmf-vars', '/none'], 1, '/none', 'ovmf'],
    [['--disk', 'win.raw', '--tcg', '--device', 'ff:1f.7'], 1, 'no PCI device', 'lspci'],
    [['--disk', 'win.raw', '--tcg', '--device', 'gpu'], 2, 'host address', 'lspci'],
    [['--disk', 'win.raw', '--memory', 'much'], 2, '--memory takes a size', '--help'],
    [['--disk'], 2, '--disk lacks its value', '--help'],
    [['--bogus'], 2, 'there is no option --bogus', '--help'],
    [['--disk', 'win.raw', '--state', 'a,b'], 2, 'comma', '--state'],
    [['--disk', 'win.raw', '--state', 'x'.repeat(120)], 1, '107 bytes', '--state'],
  ])('%j', async (args, status, said, hint) => {
    const result = await script(args.includes('--device') ? args : [...args, '--tcg']);
    expect(result.status).toBe(status);
    expect(result.stderr).toContain(said);
    expect(result.stderr).toContain(hint);
    expect(result.stdout).toBe('');
  });

  it('names the packages of a firmware and a TPM that are not there', async () => {
    // A PATH with nothing but the tools of a small system.
    for (const tool of ['sh', 'sed', 'cat', 'wc', 'head', 'basename', 'dirname'])
      symlinkSync(execFileSync('which', [tool], { encoding: 'utf8' }).trim(), place.path(tool));
    const result = await run(SCRIPT, ['--disk', 'win.raw', '--tcg'], {
      cwd: place.dir,
      env: { PATH: place.dir },
    });
    expect(result.status).toBe(1);
    expect(result.stderr).toContain(
      'there is no swtpm\nhint: Debian and Ubuntu: apt install swtpm',
    );
  });
});
