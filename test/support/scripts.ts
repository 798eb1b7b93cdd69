import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The path of a file in qemu-scripts/. */
export function scriptPath(name: string): string {
  return fileURLToPath(new URL(`../../qemu-scripts/${name}`, import.meta.url));
}

/**
 * Runs a script of qemu-scripts/ and returns the lines that it prints. When it fails, the error
 * holds its own words, which say what to install.
 */
export async function scriptLines(name: string, args: readonly string[] = []): Promise<string[]> {
  const { stdout } = await run(scriptPath(name), args, { encoding: 'utf8' });
  return stdout.split('\n').filter((line) => line !== '');
}

/** Splits arguments that hold no spaces, so that they read as on a command line. */
export function words(line: string): string[] {
  return line.split(' ');
}
