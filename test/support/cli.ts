import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PATIENCE_MS } from './soon.ts';

/** The built program; `npm test` builds it first. */
export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/**
 * Whatever a program of ours starts has this in its environment: so it is found again even after
 * its parent died, and in a session of its own, as QEMU is.
 */
const MARKER = 'MMIOBRIDGE_TEST_PROCESS';

export interface CliResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  readonly timeoutMs?: number;
}

export interface CliProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  /** What it has said so far, a byte a character. */
  stdout(): string;
  stderr(): string;
  /** Its own end; what it started may still run. */
  readonly exited: Promise<Pick<CliResult, 'status' | 'signal'>>;
  /** Kills it and all that it started. */
  kill(): Promise<void>;
}

/** Starts a program with its standard input a pipe. It ends with the test process at the latest. */
export function start(
  program: string,
  args: readonly string[],
  options: Pick<CliOptions, 'cwd' | 'env'> = {},
): CliProcess {
  const id = randomUUID();
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env, [MARKER]: id },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('latin1').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // It may end before it has read what we give it.
  child.stdin.on('error', () => undefined);

  const atExit = (): void => void killMarked(id);
  process.once('exit', atExit);
  const closed = new Promise((resolve) => {
    child.once('close', resolve);
  });
  const exited = new Promise<Pick<CliResult, 'status' | 'signal'>>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status, signal) => {
      // What it started may hold its pipes for ever; what it wrote itself is there at once.
      const late = delay(1000, undefined, { ref: false });
      void Promise.race([closed, late]).then(() => resolve({ status, signal }));
    });
  });
  return {
    child,
    pid: child.pid ?? -1,
    stdout: () => stdout,
    stderr: () => stderr,
    exited,
    async kill() {
      // One that was just being started is found by the next look.
      while (killMarked(id) > 0) await delay(20);
      process.off('exit', atExit);
    },
  };
}

/**
 * Runs a program to its end; one that takes too long is killed, and that is an error. Nothing that
 * it started stays behind.
 */
export async function run(
  program: string,
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const { timeoutMs = PATIENCE_MS } = options;
  const started = start(program, args, options);
  started.child.stdin?.end(options.input);
  const stop = new AbortController();
  try {
    const late = delay(timeoutMs, undefined, { signal: stop.signal }).catch(() => undefined);
    const end = await Promise.race([started.exited, late]);
    if (end === undefined) {
      const words = started.stderr();
      throw new Error(`${program} ${args.join(' ')} took over ${timeoutMs} ms\n${words}`);
    }
    return { ...end, stdout: started.stdout(), stderr: started.stderr() };
  } finally {
    stop.abort();
    await started.kill();
  }
}

/** How many there were. */
function killMarked(id: string): number {
  let killed = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      if (!environment.includes(`${MARKER}=${id}`)) continue;
      process.kill(Number(pid), 'SIGKILL');
      killed++;
    } catch {
      // It has ended, or is another user's.
    }
  }
  return killed;
}

export function startCli(
  args: readonly string[],
  options: Pick<CliOptions, 'cwd' | 'env'> = {},
): CliProcess {
  return start(process.execPath, [MAIN, ...args], options);
}

export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return run(process.execPath, [MAIN, ...args], options);
}

/** A folder for a test's files, and a run folder of its own; gone with `await using`. */
export class Workplace implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'mmiobridge-test-'));
  readonly runDir = mkdtempSync('/dev/shm/mmiobridge-test-');

  path(name: string): string {
    return join(this.dir, name);
  }

  text(name: string): string {
    return readFileSync(this.path(name), 'latin1');
  }

  cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    const env = { MMIOBRIDGE_RUN: this.runDir, ...options.env };
    return runCli(args, { cwd: this.dir, ...options, env });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.dir, { recursive: true, force: true });
    rmSync(this.runDir, { recursive: true, force: true });
  }
}

/** A run folder of its own, so that recordings of a test and of the machine do not meet. */
export function privateRunDir(): {
  readonly env: { readonly MMIOBRIDGE_RUN: string };
  readonly dispose: () => void;
} {
  const dir = mkdtempSync('/dev/shm/mmiobridge-test-');
  return {
    env: { MMIOBRIDGE_RUN: dir },
    dispose: () => rmSync(dir, { recursive: true, force: true }),
  };
}
