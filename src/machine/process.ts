import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { log } from '../base/log.ts';
import type { LaunchPlan } from './argv.ts';
import { shellQuote } from './dry-run.ts';
import { lastLines } from './last-lines.ts';
import { hintFor } from './qemu-words.ts';

export interface LaunchOptions {
  /** Takes QEMU's stderr: a file, so that its words outlive both of us. Created or emptied. */
  readonly stderrFile: string;
}

export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** How many of QEMU's last lines an error shows. */
const LAST_LINES = 20;

/** How often the process group is asked whether someone of it is left. */
const GROUP_POLL_MS = 20;

/**
 * Starts QEMU: in a session and process group of its own, so that a Ctrl-C for us is none for it;
 * or in ours where it needs the terminal. Resolves when the program runs; whether QEMU likes its
 * command line shows later: see `QemuProcess.orExit`.
 *
 * @throws MmioError `not-found` or `refused` if the program cannot be run, `io` if `stderrFile`
 *   cannot be written
 */
export async function launchQemu(plan: LaunchPlan, options: LaunchOptions): Promise<QemuProcess> {
  const [program = '', ...args] = plan.argv;
  const stderr = openForStderr(options.stderrFile);
  try {
    const child = spawn(program, args, {
      detached: !plan.usesStdio,
      stdio: stdioOf(plan, stderr),
    });
    const qemu = new QemuProcess(child, plan, options.stderrFile);
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (error) => reject(spawnError(program, error)));
    });
    log('qemu', () => `process ${qemu.pid}: ${plan.argv.join(' ')}`);
    void qemu.exited.then(({ code, signal }) =>
      log('qemu', () => `process ${qemu.pid} ended: ${signal ?? `status ${code}`}`),
    );
    return qemu;
  } catch (error) {
    throw error instanceof MmioError ? error : spawnError(program, error);
  } finally {
    closeSync(stderr);
  }
}

/** A QEMU that we started. */
export class QemuProcess {
  readonly pid: number;
  /** Settles once; never rejects. */
  readonly exited: Promise<QemuExit>;
  readonly #plan: LaunchPlan;
  readonly #stderrFile: string;
  #gone = false;
  #groupGone = false;

  /** For `launchQemu`. */
  constructor(child: ChildProcess, plan: LaunchPlan, stderrFile: string) {
    this.pid = child.pid ?? -1;
    this.#plan = plan;
    this.#stderrFile = stderrFile;
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#gone = true;
        // Once nobody is left the number may become another group's: never signal it again.
        this.#signal(0);
        resolve({ code, signal });
      });
    });
  }

  /** QEMU has our terminal. */
  get usesStdio(): boolean {
    return this.#plan.usesStdio;
  }

  /** The last lines, at most 20, that QEMU wrote to stderr; empty if there are none. */
  lastWords(): Promise<string> {
    return lastLines(this.#stderrFile, LAST_LINES);
  }

  /**
   * Waits for `ready` (QMP's greeting, say), unless QEMU ends first.
   *
   * @throws MmioError `refused` with exit code, command, QEMU's last words and a hint if it ends
   *   first; else what `ready` rejects with
   */
  async orExit<T>(ready: Promise<T>): Promise<T> {
    // A connection that fails because QEMU has just died must not hide why it died.
    const settled = ready.then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    );
    const first = await Promise.race([settled, this.exited.then(() => undefined)]);
    if (first !== undefined && 'value' in first) return first.value;
    const exit = await Promise.race([
      this.exited,
      new Promise<undefined>((resolve) => {
        setTimeout(() => resolve(undefined), first === undefined ? 0 : 100);
      }),
    ]);
    if (exit !== undefined) throw await this.exitError(exit);
    throw first?.error;
  }

  /** The error for a QEMU that ended when it should not have. */
  async exitError(exit: QemuExit): Promise<MmioError> {
    const words = await this.lastWords();
    const how = exit.signal === null ? `exit code ${exit.code ?? '?'}` : `signal ${exit.signal}`;
    const command = this.#plan.argv.map(shellQuote).join(' ');
    return new MmioError('refused', `QEMU ended with ${how}`, {
      evidence: `${words === '' ? 'it said nothing' : words}\ncommand: ${command}`,
      hint: hintFor(words) ?? 'run the command without mmiobridge to see whether QEMU takes it',
    });
  }

  /**
   * SIGTERM to QEMU and all that it started, SIGKILL to what is left after `graceMs`; only to QEMU
   * itself where it shares our process group. Resolves when it is gone; no harm if it already is.
   */
  async terminate(graceMs: number): Promise<void> {
    const deadline = Date.now() + graceMs;
    this.#signal('SIGTERM');
    while (this.#someoneLeft() && Date.now() < deadline) {
      await new Promise((resolve) => {
        setTimeout(resolve, GROUP_POLL_MS);
      });
    }
    this.#signal('SIGKILL');
    await this.exited;
  }

  /** SIGKILL at once, synchronously: for a process `exit` handler. */
  killNow(): void {
    this.#signal('SIGKILL');
  }

  #someoneLeft(): boolean {
    return this.#plan.usesStdio ? !this.#gone : this.#signal(0);
  }

  /** Whether someone got it. A group keeps its number as long as one of it lives. */
  #signal(signal: NodeJS.Signals | 0): boolean {
    const { usesStdio } = this.#plan;
    if (this.pid <= 0 || (usesStdio ? this.#gone : this.#groupGone)) return false;
    try {
      process.kill(usesStdio ? this.pid : -this.pid, signal);
      return true;
    } catch (error) {
      const code = systemCodeOf(error);
      if (code === 'ESRCH' && this.#gone) this.#groupGone = true;
      // EPERM: alive, and another user's (started through sudo).
      return code === 'EPERM' && !this.#gone;
    }
  }
}

type Stdio = 'ignore' | 'inherit' | number;

function stdioOf(plan: LaunchPlan, stderr: number): Stdio[] {
  // Our stdout may be the recording: QEMU's own goes to our stderr.
  const stdio: Stdio[] = plan.usesStdio ? ['inherit', 'inherit', stderr] : ['ignore', 2, stderr];
  for (const fd of plan.inheritedFds) {
    while (stdio.length < fd) stdio.push('ignore');
    stdio[fd] = fd;
  }
  return stdio;
}

function openForStderr(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    throw new MmioError('io', `cannot write ${path}, where QEMU's messages are to go`, {
      evidence: messageOf(error),
      cause: error,
    });
  }
}

function spawnError(program: string, error: unknown): MmioError {
  const code = systemCodeOf(error);
  const detail = { evidence: messageOf(error), cause: error };
  if (code === 'ENOENT') {
    const hint = 'install it (Debian: apt install qemu-system-x86), or give its full path';
    return new MmioError('not-found', `there is no program ${program}`, { ...detail, hint });
  }
  const hint =
    code === 'EACCES'
      ? 'the file is not executable, or is in a directory that you may not enter'
      : undefined;
  return new MmioError('refused', `cannot run ${program}`, { ...detail, hint });
}
