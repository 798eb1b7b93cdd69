import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Our program, as it is built. */
export const MMIOBRIDGE = [
  process.execPath,
  fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url)),
];

export interface Run {
  readonly seconds: number;
  /** Largest resident set (VmHWM), as far as it was seen while the process ran. */
  readonly peakMiB: number;
  readonly status: number | null;
}

export interface RunOptions {
  /** Files for standard input and output; the latter is thrown away where none is named. */
  readonly stdin?: string;
  readonly stdout?: string;
  readonly statuses?: readonly number[];
  /** Look at the memory; it costs a little time. */
  readonly watchMemory?: boolean;
  /** The process ends when this is aborted. */
  readonly stop?: AbortSignal;
}

/** Runs a program to its end. Throws, with what it said, where its exit status is not expected. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Run> {
  const [program = '', ...args] = argv;
  const stdin = openSync(options.stdin ?? '/dev/null', 'r');
  const stdout = openSync(options.stdout ?? '/dev/null', 'w');
  const began = performance.now();
  const child = spawn(program, args, { stdio: [stdin, stdout, 'pipe'] });
  closeSync(stdin);
  closeSync(stdout);
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (said += text));
  let peakMiB = 0;
  const look = (): void => {
    peakMiB = Math.max(peakMiB, peakOf(child.pid ?? 0));
  };
  const timer = options.watchMemory === true ? setInterval(look, 50) : undefined;
  const stop = (): void => void child.kill();
  options.stop?.addEventListener('abort', stop, { once: true });
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const seconds = (performance.now() - began) / 1000;
    const stopped = options.stop?.aborted === true;
    if (!stopped && !(options.statuses ?? [0]).includes(status ?? -1)) {
      throw new Error(`${argv.join(' ')} ended with ${status}:\n${said}`);
    }
    return { seconds, peakMiB, status };
  } finally {
    clearInterval(timer);
    options.stop?.removeEventListener('abort', stop);
  }
}

function peakOf(pid: number): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return Number(line?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? NaN)) / 2;
}
