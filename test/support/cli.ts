import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The built program; `npm test` builds it first. */
export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

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

/** Runs a program to its end; one that takes too long is killed, and that is an error. */
export function run(
  program: string,
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const { timeoutMs = 60_000 } = options;
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('latin1').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGTERM');
      setTimeout(() => child.kill('SIGKILL'), 5000).unref();
      reject(new Error(`${program} ${args.join(' ')} took over ${timeoutMs} ms\n${stderr}`));
    }, timeoutMs);
    child.once('error', reject);
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, stdout, stderr });
    });
  });
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
