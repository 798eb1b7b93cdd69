import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inject } from 'vitest';
import { type CliResult, run } from './cli.ts';
import './lab-setup.ts';
import { scriptLines, scriptPath, words } from './scripts.ts';

/** L1's card to pass through (see qemu-scripts/lab/l1.sh for all that L1 has). */
export const PASSED_THROUGH = '0000:00:10.0';

/** More than the longest command of the tests takes on a busy machine. */
const RUN_LIMIT_MS = 180_000;

/** L1 or L2 crashed, hung or took too long: that says nothing of what was to be tested. */
export class LabFailure extends Error {}

/** A passthrough host without the hardware: what runs in it is this checkout, as root. */
export class Lab {
  readonly #state: string;

  private constructor(state: string) {
    this.#state = state;
  }

  /** The L1 of this test run, which boots when it is first asked for. It ends with the run. */
  static async start(): Promise<Lab> {
    const { state, owner } = inject('lab');
    const lab = new Lab(state);
    // One that has crashed fails the test that it ran, and no other.
    if (!existsSync(join(state, 'share/up')) || !(await lab.#isUp())) {
      await bootL1(state, owner);
    }
    return lab;
  }

  async #isUp(): Promise<boolean> {
    const command = ['run', this.#state, '--timeout', '10', 'true'];
    return (await run(scriptPath('lab/l1.sh'), command, { timeoutMs: 20_000 })).status === 0;
  }

  /** Ends it, however it does; `start` then boots another. */
  async stop(): Promise<void> {
    await scriptLines('lab/l1.sh', ['stop', this.#state]);
  }

  /** A new directory which is at the same path in L1 and here. */
  place(): LabPlace {
    return new LabPlace(mkdtempSync(join(this.#state, 'share/test-')));
  }

  /**
   * Runs a command in L1, in the checkout. Throws LabFailure with all that was said when it takes
   * longer than `timeoutMs`, and when L1 is gone.
   */
  async run(
    command: readonly string[],
    options: { readonly timeoutMs?: number } = {},
  ): Promise<CliResult> {
    const { timeoutMs = RUN_LIMIT_MS } = options;
    const limit = ['--timeout', String(Math.ceil(timeoutMs / 1000))];
    const result = await run(scriptPath('lab/l1.sh'), ['run', this.#state, ...limit, ...command], {
      timeoutMs: timeoutMs + 10_000,
    }).catch((error: unknown) => {
      // An L1 that hangs does not even kill the command.
      throw new LabFailure(String(error));
    });
    if (result.status === 124 || result.status === 125) {
      throw new LabFailure(`${command.join(' ')}\n${result.stdout}\n${result.stderr}`);
    }
    return result;
  }

  /** As `run`; throws where the script fails. */
  async shell(script: string, options: { readonly timeoutMs?: number } = {}): Promise<string> {
    const { status, stdout, stderr } = await this.run(['sh', '-euc', script], options);
    if (status !== 0) throw new Error(`status ${status} of ${script}\n${stdout}\n${stderr}`);
    return stdout;
  }

  /** The program itself, in L1. */
  cli(args: readonly string[], options: { readonly timeoutMs?: number } = {}): Promise<CliResult> {
    return this.run(['node', 'dist/cli/main.js', ...args], options);
  }
}

/** Boots an L1 for a run of tests: nobody edits the checkout meanwhile. */
export async function bootL1(state: string, owner: number): Promise<void> {
  // On older ones L1 hangs at times.
  const [qemu = ''] = await scriptLines('fetch-qemu.sh', ['11.1']);
  const start = ['start', state, '--owner', String(owner), '--qemu', qemu, '--still'];
  await scriptLines('lab/l1.sh', start);
}

/** A directory in the share of L1. */
export class LabPlace {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  text(name: string): string {
    return readFileSync(this.path(name), 'latin1');
  }
}

/** What L2 can do (see qemu-scripts/lab/l2.sh); the files that it writes have these names. */
export type L2Task = 'oracle' | 'userspace' | 'hammer';

/**
 * A guest for L1: Linux with the card passed through, which does its tasks and powers off. What it
 * writes, and its console, land in `out`. The tracer of `oracle` wants one processor, `hammer` two.
 */
export async function l2Guest(options: {
  readonly tasks: readonly L2Task[];
  readonly processors: number;
  readonly out: LabPlace;
  /** Further properties of the card: `,x-no-mmap=off`. */
  readonly card?: string | undefined;
  /** Further words of its kernel's command line. */
  readonly kernelWords?: string | undefined;
}): Promise<string[]> {
  const [kernel = '', initramfs = ''] = await scriptLines('lab/l2.sh');
  const { dir } = options.out;
  return [
    'qemu-system-x86_64',
    ...words(`-machine q35,accel=kvm -cpu host -smp ${options.processors} -m 256`),
    ...words('-nodefaults -display none -no-reboot'),
    '-kernel',
    kernel,
    '-initrd',
    initramfs,
    '-append',
    words('console=ttyS0 loglevel=4 panic=-1 nokaslr mitigations=off')
      .concat(options.tasks.map((task) => `task=${task}`))
      .concat(options.kernelWords ?? [])
      .join(' '),
    '-serial',
    `file:${dir}/console`,
    '-virtfs',
    `local,path=${dir},mount_tag=out,security_model=none`,
    // The firmware would read its option ROM byte by byte: 18,823 accesses that are no driver's.
    '-device',
    `vfio-pci,host=${PASSED_THROUGH},rombar=0,id=nic0${options.card ?? ''}`,
  ];
}
