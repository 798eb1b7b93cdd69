import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { scriptPath } from './scripts.ts';

export const SYSTEM_QEMU = 'qemu-system-x86_64';

export interface QemuVersion {
  /** Major and minor, such as `7.2`. */
  readonly version: string;
  /** A program, for argv[0]. */
  readonly path: string;
}

/**
 * The QEMUs that the tests run on: the system's (7.2 on Debian 12), 10.0 and 11.1. The latter are
 * downloaded into the cache the first time, about 6 seconds each. Blocking, so that `describe.each`
 * can take it.
 */
export function qemuVersions(): QemuVersion[] {
  const version = /version (\d+\.\d+)/.exec(read(SYSTEM_QEMU, ['--version']))?.[1];
  if (version === undefined) throw new Error(`${SYSTEM_QEMU} --version names no version`);
  return [
    { version, path: SYSTEM_QEMU },
    ...['10.0', '11.1'].map((newer) => ({
      version: newer,
      path: read(scriptPath('fetch-qemu.sh'), [newer]).trim(),
    })),
  ];
}

function read(program: string, args: readonly string[]): string {
  // stderr is kept out of the tests' output; execFileSync puts it into the error.
  return execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' });
}

export interface QemuRun {
  /** The exit status; null when a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a QEMU until it ends by itself or `stop` is aborted, which is the way to end a guest that
 * runs for ever. Throws when it does not start, and when it is still running after `timeoutMs`.
 * However this ends, and even when the test process exits, no process stays behind.
 */
export async function runQemu(
  argv: readonly string[],
  options: { readonly timeoutMs?: number; readonly stop?: AbortSignal } = {},
): Promise<QemuRun> {
  const { timeoutMs = 60_000, stop } = options;
  const [program, ...args] = argv;
  if (program === undefined) throw new Error('an empty argv');
  // A group of its own: what QEMU starts is ended with it, and a Ctrl-C at the tests' terminal
  // reaches us alone.
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));

  let timedOut = false;
  // SIGTERM lets QEMU flush its log; one that does not listen is killed.
  const end = (): void => {
    signalGroup(child.pid, 'SIGTERM');
    setTimeout(() => signalGroup(child.pid, 'SIGKILL'), 3_000).unref();
  };
  const kill = (): void => signalGroup(child.pid, 'SIGKILL');
  const timer = setTimeout(() => {
    timedOut = true;
    kill();
  }, timeoutMs);
  process.once('exit', kill);
  try {
    const closed = new Promise<{ status: number | null; signal: NodeJS.Signals | null }>(
      (resolve, reject) => {
        child.once('error', reject);
        child.once('close', (status, signal) => resolve({ status, signal }));
      },
    );
    if (stop?.aborted === true) end();
    stop?.addEventListener('abort', end, { once: true });
    const { status, signal } = await closed;
    if (timedOut) throw new Error(`QEMU was still running after ${timeoutMs} ms: ${stderr}`);
    return { status, signal, stdout, stderr };
  } finally {
    clearTimeout(timer);
    stop?.removeEventListener('abort', end);
    process.removeListener('exit', kill);
  }
}

/** To a whole process group; to nobody when it has ended, or never started. */
function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended.
  }
}

/**
 * Whether somebody listens at the path of a Unix socket. The file is there before that: who connects
 * in between is refused. As /proc/net/unix says, whose flag is __SO_ACCEPTCON of linux/net.h.
 */
export function isListening(socket: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .map((line) => /^\S+ \S+ \S+ 00010000 \S+ \S+ +\d+ (.+)$/.exec(line)?.[1])
    .some((path) => path !== undefined && (path === socket || socket.endsWith(`/${path}`)));
}
