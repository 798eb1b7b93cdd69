import type { UserLog } from '../../machine/argv-user.ts';
import { FileOutput } from '../../sinks/output.ts';

/** How many bytes of passed-on lines are gathered before they are written. */
const GATHER_BYTES = 64 * 1024;

/**
 * Lines that are the user's: QEMU has one log, and while it is ours, what the user asked QEMU to log
 * (`-d`, `-trace`) is passed on to where it would have gone.
 */
export class UserLogWriter {
  readonly #wanted: UserLog;
  readonly #file: FileOutput | undefined;
  readonly #onStderr: (bytes: Uint8Array) => void;
  #lines: Uint8Array[] = [];
  #bytes = 0;

  private constructor(
    wanted: UserLog,
    file: FileOutput | undefined,
    onStderr: (bytes: Uint8Array) => void,
  ) {
    this.#wanted = wanted;
    this.#file = file;
    this.#onStderr = onStderr;
  }

  /** @param onStderr takes what QEMU would have written to its standard error */
  static async open(
    wanted: UserLog,
    onStderr: (bytes: Uint8Array) => void,
    resumeAt?: number,
  ): Promise<UserLogWriter> {
    const { path } = wanted;
    const onStall = (reason: string | undefined) =>
      onStderr(Buffer.from(reason === undefined ? `${path} has room\n` : `no room: ${reason}\n`));
    const options = { onStall, ...(resumeAt !== undefined && { resumeAt }) };
    const file = path === undefined ? undefined : await FileOutput.open(path, options);
    return new UserLogWriter(wanted, file, onStderr);
  }

  /** Whether the user asked for events at all. */
  get wantsEvents(): boolean {
    return this.#wanted.patterns.length > 0;
  }

  /** Whether the user, too, asked for an event that we record. */
  wantsAlso(event: string): boolean {
    return this.#wanted.patterns.some((pattern) => globMatches(pattern, event));
  }

  line(bytes: Uint8Array): void {
    this.#lines.push(bytes);
    this.#bytes += bytes.length;
    if (this.#bytes >= GATHER_BYTES) this.#handOn();
  }

  #handOn(): void {
    if (this.#bytes === 0) return;
    const bytes = Buffer.concat(this.#lines);
    this.#lines = [];
    this.#bytes = 0;
    if (this.#file === undefined) this.#onStderr(bytes);
    else void this.#file.write(bytes).catch(() => undefined);
  }

  /** Writes what was gathered; the file's length. */
  async flush(): Promise<number> {
    this.#handOn();
    return (await this.#file?.flush()) ?? 0;
  }

  async close(): Promise<void> {
    await this.flush();
    await this.#file?.close();
  }
}

/** QEMU's trace patterns: `*` and `?` (glib's g_pattern_match). */
function globMatches(pattern: string, text: string): boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`).test(text);
}
