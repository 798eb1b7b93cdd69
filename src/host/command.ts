/** Programs on the host that a user asks for. */
import { spawn } from 'node:child_process';
import { MmioError, messageOf } from '../base/errors.ts';

export interface CommandExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

const KEPT_BYTES = 16 * 2 ** 20;
const KILL_AFTER_MS = 2000;

/**
 * Runs a program to its end, in a process group of its own, which is ended as a whole when its time is
 * over. Throws MmioError `not-found`, `timeout`, `refused` for more than 16 MiB of output; or the
 * signal's reason.
 */
export async function runCommand(
  program: string,
  args: readonly string[],
  options: {
    readonly cwd: string;
    readonly env: Readonly<Record<string, string>>;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
  },
): Promise<CommandExit> {
  const { cwd, env, timeoutMs, signal } = options;
  signal.throwIfAborted();
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, ...env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const kill = (how: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, how);
    } catch {
      // It has ended.
    }
  };
  let failure: unknown;
  const stop = (why: unknown) => {
    failure ??= why;
    kill('SIGTERM');
    setTimeout(() => kill('SIGKILL'), KILL_AFTER_MS).unref();
  };
  const timer = setTimeout(
    () =>
      stop(
        new MmioError(
          'timeout',
          `${program} did not end within ${(timeoutMs / 1000).toFixed(1)} s`,
          {
            hint: 'it was ended; give the step a longer time-limit',
          },
        ),
      ),
    timeoutMs,
  );
  const abort = () => stop(signal.reason);
  signal.addEventListener('abort', abort);
  const gather = (stream: NodeJS.ReadableStream): Buffer[] => {
    const pieces: Buffer[] = [];
    let total = 0;
    stream.on('data', (piece: Buffer) => {
      total += piece.length;
      if (total <= KEPT_BYTES) pieces.push(piece);
      else stop(new MmioError('refused', `${program} wrote more than 16 MiB`));
    });
    return pieces;
  };
  const stdout = gather(child.stdout);
  const stderr = gather(child.stderr);
  try {
    const exit = await new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(
      (resolve, reject) => {
        child.once('error', (error) =>
          reject(
            new MmioError('not-found', `cannot run ${program} on the host`, {
              evidence: messageOf(error),
              cause: error,
            }),
          ),
        );
        child.once('close', (code, by) => resolve({ code, signal: by }));
      },
    );
    if (failure !== undefined) throw failure;
    return { ...exit, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr) };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
