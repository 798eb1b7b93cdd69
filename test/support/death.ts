import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { cmdlineOf, isAlive, startTimeOf } from '../../src/machine/proc.ts';
import { PATIENCE_MS, until } from './soon.ts';

export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Exit {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The program while it runs, as a person sees it. */
export class Running {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  stdout = '';
  stderr = '';
  readonly child: ChildProcess;

  constructor(child: ChildProcess) {
    this.child = child;
    this.pid = child.pid ?? -1;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.exited = new Promise((resolve, reject) => {
      child.once('error', reject);
      // Not `close`: QEMU has our standard error as its standard output, and may outlive it.
      child.once('exit', (status, signal) => setImmediate(() => resolve({ status, signal })));
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Waits until it has said this on standard error. */
  async says(words: RegExp): Promise<void> {
    await until(`it says ${words.source}`, () => words.test(this.stderr)).catch(
      (error: unknown) => {
        throw new Error(`it said:\n${this.stderr}`, { cause: error });
      },
    );
  }
}

/** A place for recordings of one test: with a run folder of its own, and nothing left of it after. */
export class Bench {
  readonly dir = mkdtempSync(join(tmpdir(), 'mmiobridge-death-'));
  readonly runDir = mkdtempSync('/dev/shm/mmiobridge-death-');
  readonly #running: Running[] = [];
  readonly #mounts: string[] = [];

  path(name: string): string {
    return join(this.dir, name);
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'latin1');
  }

  /** Starts the program, or another one that starts it, with this run folder. */
  start(args: readonly string[], program: string = process.execPath): Running {
    const argv = program === process.execPath ? [MAIN, ...args] : args;
    const child = spawn(program, argv, {
      cwd: this.dir,
      env: { ...process.env, MMIOBRIDGE_RUN: this.runDir },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const running = new Running(child);
    this.#running.push(running);
    return running;
  }

  /** `record`, until the guest runs and accesses come. */
  async record(args: readonly string[], guest: readonly string[]): Promise<Running> {
    const recorder = this.start(['record', '--device', 'dut', ...args, '--', ...guest]);
    await recorder.says(/^recording /m);
    return recorder;
  }

  /** `resume`, until it runs. */
  async resume(id: string): Promise<Running> {
    const resumed = this.start(['resume', id]);
    await resumed.says(/^resuming/m);
    return resumed;
  }

  /** Runs the program to its end. */
  async run(...args: readonly string[]): Promise<Exit & { stdout: string; stderr: string }> {
    const running = this.start(args);
    const late = sleep(PATIENCE_MS, undefined, { ref: false });
    const exit = await Promise.race([running.exited, late]);
    if (exit === undefined) throw new Error(`${args.join(' ')} has not ended; ${running.stderr}`);
    return { ...exit, stdout: running.stdout, stderr: running.stderr };
  }

  /** Names of the sessions that are in the run folder, whatever state they are in. */
  sessions(): string[] {
    return readdirSync(this.runDir);
  }

  session(): string {
    const [id, ...others] = this.sessions();
    if (id === undefined || others.length > 0)
      throw new Error(`not one session: ${this.sessions().join(', ')}`);
    return id;
  }

  /** The QEMUs that log into this run folder and live. */
  qemus(): number[] {
    return readdirSync('/proc')
      .map(Number)
      .filter((pid) => pid > 0)
      .filter((pid) => {
        const [program = '', ...words] = cmdlineOf(pid);
        const ours = /qemu-system/.test(program) && words.some((it) => it.includes(this.runDir));
        return ours && isAlive(pid, startTimeOf(pid) ?? -1);
      });
  }

  qemu(): number {
    const [pid, ...others] = this.qemus();
    if (pid === undefined || others.length > 0)
      throw new Error(`not one QEMU: ${this.qemus().join(', ')}`);
    return pid;
  }

  async status(): Promise<StatusEntry[]> {
    const { stdout } = await this.run('status', '--json');
    return JSON.parse(stdout) as StatusEntry[];
  }

  /** Waits until an output has grown to this many bytes. */
  async grown(name: string, bytes: number): Promise<void> {
    const size = () => statSync(this.path(name), { throwIfNoEntry: false })?.size ?? 0;
    await until(`${name} has ${bytes} bytes`, () => size() >= bytes).catch((error: unknown) => {
      const said = this.#running.map(({ stderr }) => stderr).join('\n');
      throw new Error(`${name} has ${size()} bytes; it said:\n${said}`, { cause: error });
    });
  }

  /** Total size of the segments in the spool now. */
  spoolBytes(): number {
    const spool = join(this.runDir, this.session(), 'spool');
    const sizes = readdirSync(spool).map(
      (name) => statSync(join(spool, name), { throwIfNoEntry: false })?.size ?? 0,
    );
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  /** A disk of this size at `dir/name`. Needs root, and says so. */
  mountDisk(name: string, size: string): string {
    if (process.getuid?.() !== 0) {
      throw new Error('a full disk is tested on a small tmpfs: run the tests as root');
    }
    const path = this.path(name);
    mkdirSync(path);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path], { stdio: 'pipe' });
    this.#mounts.push(path);
    return path;
  }

  /** Has the run folder, and the spool with it, on a file system of this size. */
  mountRunDir(size: string): void {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=700`, 'tmpfs', this.runDir], {
      stdio: 'pipe',
    });
    this.#mounts.push(this.runDir);
  }

  enlargeDisk(path: string, size: string): void {
    execFileSync('mount', ['-o', `remount,size=${size}`, path], { stdio: 'pipe' });
  }

  async close(): Promise<void> {
    for (const { child } of this.#running) child.kill('SIGKILL');
    await until('all QEMUs are gone', () => {
      for (const pid of this.qemus()) process.kill(pid, 'SIGKILL');
      return this.qemus().length === 0;
    });
    await Promise.allSettled(this.#running.map(({ exited }) => exited));
    for (const path of this.#mounts) execFileSync('umount', ['-l', path]);
    rmSync(this.dir, { recursive: true });
    rmSync(this.runDir, { recursive: true });
  }
}

export interface StatusEntry {
  readonly session: string;
  readonly state: string;
  readonly status?: {
    readonly counters: { readonly reads: number; readonly lossEvents: number };
    readonly stalled: string | null;
    readonly spoolBytes: number;
  };
}

export interface Gap {
  /** Index of the last line before it, and of the first behind it. */
  readonly before: number;
  readonly behind: number;
  /** Accesses that are not there. */
  readonly missing: number;
}

export interface Counted {
  /** Writes, and reads of the same values. */
  readonly pairs: number;
  /** Where the counter jumps, in order. */
  readonly gaps: readonly Gap[];
  readonly lines: readonly string[];
}

/**
 * The hammer guest's accesses in mmiotrace text: W n, R ~n, for n = 0, 1, 2, … in order, each once.
 * Throws where one is out of order or doubled; where some are missing is in `gaps`. A read at the
 * end may be missing: the guest was stopped in between.
 */
export function counted(text: string): Counted {
  if (!text.endsWith('\n')) throw new Error(`it ends in half a line: ${text.slice(-80)}`);
  const lines = text.slice(0, -1).split('\n');
  const gaps: Gap[] = [];
  let step = 0;
  let before = -1;
  for (const [index, line] of lines.entries()) {
    const access = /^([RW]) 4 \d+\.\d{6} \d+ 0xe1000004 0x([0-9a-f]+) 0x[0-9a-f]+ 0$/.exec(line);
    if (access === null) {
      if (/^[RW] /.test(line)) throw new Error(`line ${index}: ${line}`);
      continue;
    }
    const value = parseInt(access[2] ?? '', 16);
    // Two steps a pair: the write of n, and the read of its complement.
    const found = access[1] === 'W' ? value * 2 : (0xffff_ffff - value) * 2 + 1;
    if (found < step) throw new Error(`line ${index} is doubled or out of order: ${line}`);
    if (found > step) gaps.push({ before, behind: index, missing: found - step });
    step = found + 1;
    before = index;
  }
  return { pairs: Math.ceil(step / 2), gaps, lines };
}

/** How many accesses mmiobridge itself says are in this text, in its last line. */
export function toldAtEnd(text: string): { reads: number; writes: number; how: string } {
  const end = /mmiobridge: end (\w+), reads (\d+), writes (\d+)[^\n]*\n$/.exec(text);
  if (end === null) throw new Error(`it has no end MARK: ${text.slice(-200)}`);
  return { how: end[1] ?? '', reads: Number(end[2]), writes: Number(end[3]) };
}
