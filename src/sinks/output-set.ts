import { constants, readlinkSync } from 'node:fs';
import { resolve as resolvePath } from 'node:path';
import { MmioError } from '../base/errors.ts';
import { openFlagsOf } from '../base/proc-fs.ts';
import { fileIdOf, writerOf } from '../base/same-file.ts';
import type { RecordingHeader } from '../model/events.ts';
import type { Sink, StreamItem } from '../model/stream.ts';
import type { TablesSnapshot } from '../model/tables.ts';
import { formatOfPath, openSink, type OutputFormat } from './index.ts';
import type { SinkOptions } from './text-extra.ts';
import { FileOutput, GzipOutput, StreamOutput, type ByteOutput } from './output.ts';

export interface OutputOptions extends SinkOptions {
  /** For standard output, and paths whose suffix names none. */
  readonly format?: OutputFormat | undefined;
  /** The disk is full, or (`undefined`) has room again. */
  readonly onStall?: (reason: string | undefined) => void;
  readonly signal?: AbortSignal;
  /** The files appear, in the place of what was there, when the outputs have been ended. */
  readonly replaces?: boolean;
  /** Length to go on from, for each path. */
  readonly resumeAt?: readonly number[];
  /** Takes a capture, behind the paths' outputs. */
  readonly remote?: ByteOutput | undefined;
}

/** All outputs of a recording, fed as one. */
export class OutputSet {
  readonly #outputs: readonly ByteOutput[];
  readonly #sinks: readonly Sink[];
  readonly #files: readonly FileOutput[];

  private constructor(outputs: ByteOutput[], sinks: Sink[], files: readonly FileOutput[]) {
    this.#outputs = outputs;
    this.#sinks = sinks;
    this.#files = files;
  }

  /**
   * `-` is standard output; `.gz` compresses. Throws MmioError `usage` or `io`; then no file has
   * been made or changed.
   */
  static async open(paths: readonly string[], options: OutputOptions = {}): Promise<OutputSet> {
    const formats = paths.map((path) => formatOfPath(path, options.format));
    requireApart(paths);
    for (const path of paths) requireUnwritten(path);
    const files = await claimFiles(paths, options);
    for (const file of files) await file?.cut();
    const outputs = paths.map((path, index): ByteOutput => {
      const file = files[index];
      if (file === undefined) return standardOutput();
      return /\.gz$/i.test(path) ? new GzipOutput(file) : file;
    });
    if (options.remote !== undefined) {
      outputs.push(options.remote);
      formats.push('capture');
    }
    const sinks = await Promise.all(
      outputs.map((output, index) => openSink(formats[index] ?? 'mmiotrace', output, options)),
    );
    return new OutputSet(
      outputs,
      sinks,
      files.filter((file) => file !== undefined),
    );
  }

  async begin(header: RecordingHeader): Promise<void> {
    for (const sink of this.#sinks) await sink.begin(header);
  }

  /** @param leftOut of each output, what `leftOut` was there */
  resume(header: RecordingHeader, tables: TablesSnapshot, leftOut: readonly number[]): void {
    for (const [at, sink] of this.#sinks.entries()) sink.resume(header, tables, leftOut[at] ?? 0);
  }

  /** How many accesses each output has had no line for. */
  get leftOut(): number[] {
    return this.#sinks.map((sink) => sink.leftOut);
  }

  /** A promise where an output has fallen behind: the item is free again when it settles. */
  write(item: StreamItem): void | Promise<void> {
    let waits: Promise<void>[] | undefined;
    for (const sink of this.#sinks) {
      const written = sink.write(item);
      if (written !== undefined) (waits ??= []).push(written);
    }
    return waits === undefined ? undefined : Promise.all(waits).then(() => undefined);
  }

  /** Hands all to the system; the length of each output. */
  flush(): Promise<number[]> {
    return Promise.all(this.#sinks.map((sink) => sink.flush()));
  }

  async sync(): Promise<void> {
    await Promise.all(this.#outputs.map((output) => output.sync()));
  }

  async end(): Promise<void> {
    for (const sink of this.#sinks) await sink.end();
  }

  /** Paths of outputs that somebody had taken away when they were ended. */
  get removed(): string[] {
    return this.#files.filter(({ removed }) => removed).map(({ path }) => path);
  }

  /** Of outputs that replace what was there: it stays. */
  async discard(): Promise<void> {
    await Promise.allSettled(this.#files.map((file) => file.giveBack()));
  }

  /** Lets go of the outputs as they are, without an end: they can be resumed. */
  async abandon(): Promise<void> {
    await Promise.allSettled(this.#sinks.map((sink) => sink.flush()));
    await Promise.allSettled(this.#outputs.map((output) => output.close()));
  }
}

/** Throws MmioError `closed` where there is none. */
function standardOutput(): StreamOutput {
  if (!isStdoutClosed()) return new StreamOutput(process.stdout, 'standard output');
  throw new MmioError('closed', 'cannot write to standard output', {
    evidence: 'it is closed',
    hint: 'name a file with -o',
  });
}

/** Node opens /dev/null for reading and writing where it is started without; a shell for writing. */
function isStdoutClosed(): boolean {
  try {
    if (readlinkSync('/proc/self/fd/1') !== '/dev/null') return false;
    return (openFlagsOf('self', 1) & 0o3) === constants.O_RDWR;
  } catch {
    return false;
  }
}

/** Throws MmioError `usage` where two of them lead to one file. */
function requireApart(paths: readonly string[]): void {
  const seen = new Map<string, string>();
  for (const path of paths) {
    const id = fileIdOf(path, 1) ?? (path === '-' ? path : resolvePath(path));
    const other = seen.get(id);
    if (other !== undefined) {
      throw new MmioError('usage', 'two outputs cannot go to one file', {
        evidence: other === path ? path : `${other} and ${path}`,
        hint: 'give each -o a name of its own',
      });
    }
    seen.set(id, path);
  }
}

/** Throws MmioError `refused` for a file that another process is writing. */
function requireUnwritten(path: string): void {
  if (path === '-') return;
  const writer = writerOf(path);
  if (writer === undefined) return;
  throw new MmioError('refused', `${path} is being written by another process`, {
    evidence: `process ${writer}`,
    hint: 'is it another recording? Give this output a name of its own',
  });
}

/** One for each path, or `undefined` for standard output; all, or none. */
async function claimFiles(
  paths: readonly string[],
  options: OutputOptions,
): Promise<(FileOutput | undefined)[]> {
  const files: (FileOutput | undefined)[] = [];
  const stalled = new Map<string, string>();
  try {
    for (const [index, path] of paths.entries()) {
      const resumeAt = options.resumeAt?.[index];
      const onStall = (reason: string | undefined) => {
        if (reason === undefined) stalled.delete(path);
        else stalled.set(path, reason);
        // Another one may still be stuck.
        options.onStall?.(reason ?? [...stalled.values()][0]);
      };
      const claim = {
        ...(options.onStall && { onStall }),
        ...(options.signal && { signal: options.signal }),
        ...(options.replaces === true && { replaces: true }),
        ...(resumeAt !== undefined && { resumeAt }),
      };
      files.push(path === '-' ? undefined : await FileOutput.claim(path, claim));
    }
    return files;
  } catch (error) {
    for (const file of files) await file?.giveBack();
    throw error;
  }
}
