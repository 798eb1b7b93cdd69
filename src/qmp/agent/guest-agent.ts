/** What a lab run asks of the agent in a guest: commands, files, the time. */
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { MmioError } from '../../base/errors.ts';
import { AGENT_HINT, AgentChannel } from './channel.ts';

/** For an answer that takes no work in the guest. */
const ANSWER_LIMIT_MS = 10_000;
const FIRST_POLL_MS = 10;
const LAST_POLL_MS = 250;
/** In base64 and JSON well below what any agent takes at once (QGA_READ_COUNT_MAX is 48 MiB). */
const PIECE_BYTES = 256 * 1024;

export interface GuestCommand {
  /** A program in the guest; the agent looks along its own PATH. */
  readonly path: string;
  readonly args?: readonly string[] | undefined;
  /** `NAME=VALUE`; where given, the whole environment of a Linux guest's program. */
  readonly env?: readonly string[] | undefined;
  readonly input?: Uint8Array | undefined;
}

export interface GuestExit {
  /** undefined where a signal (Windows: an exception) ended it. */
  readonly code: number | undefined;
  readonly signal: number | undefined;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** The agent keeps 16 MiB of each; what came after that is gone. */
  readonly cut: boolean;
}

export interface GuestLimit {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

const infoSchema = z.object({
  version: z.string(),
  supported_commands: z.array(z.object({ name: z.string(), enabled: z.boolean() })),
});

const startedSchema = z.object({ pid: z.number() });

const statusSchema = z.object({
  exited: z.boolean(),
  exitcode: z.number().optional(),
  signal: z.number().optional(),
  'out-data': z.string().optional(),
  'err-data': z.string().optional(),
  'out-truncated': z.boolean().optional(),
  'err-truncated': z.boolean().optional(),
});

const readSchema = z.object({ count: z.number(), 'buf-b64': z.string(), eof: z.boolean() });
const writtenSchema = z.object({ count: z.number() });

export class GuestAgent implements AsyncDisposable {
  readonly #channel: AgentChannel;

  private constructor(channel: AgentChannel) {
    this.#channel = channel;
  }

  /** Throws as `AgentChannel.connect`; whether an agent answers `ready` tells. */
  static async connect(address: string): Promise<GuestAgent> {
    return new GuestAgent(await AgentChannel.connect(address));
  }

  /** Waits until the agent answers; its version. */
  async ready(limit: GuestLimit): Promise<string> {
    const { version } = await this.#ask('guest-info', undefined, infoSchema, limit);
    return version;
  }

  /** The guest's clock, in nanoseconds since 1970. */
  async timeNs(limit: GuestLimit = { timeoutMs: ANSWER_LIMIT_MS }): Promise<number> {
    return this.#ask('guest-get-time', undefined, z.number(), limit);
  }

  /**
   * Runs a program to its end. The agent has no way to end one: after the limit it goes on in the
   * guest. Throws as `AgentChannel.execute`.
   */
  async run(command: GuestCommand, limit: GuestLimit): Promise<GuestExit> {
    const deadline = performance.now() + limit.timeoutMs;
    const left = () => ({
      ...limit,
      timeoutMs: Math.min(ANSWER_LIMIT_MS, Math.max(0, deadline - performance.now())),
    });
    const { path, args, env, input } = command;
    const started = {
      path,
      'capture-output': true,
      ...(args !== undefined && { arg: args }),
      ...(env !== undefined && { env }),
      ...(input !== undefined && { 'input-data': Buffer.from(input).toString('base64') }),
    };
    const { pid } = await this.#ask('guest-exec', started, startedSchema, left());
    let pauseMs = FIRST_POLL_MS;
    for (;;) {
      const status = await this.#status(pid, left());
      if (status.exited) return exitOf(status);
      if (performance.now() + pauseMs > deadline) {
        throw new MmioError(
          'timeout',
          `${path} did not end within ${(limit.timeoutMs / 1000).toFixed(1)} s`,
          {
            evidence: `process ${pid} of the guest still runs`,
            hint: 'the agent cannot end it, and waits for all that have its outputs: send those of what goes on in the background elsewhere (>/dev/null 2>&1 &)',
          },
        );
      }
      await pause(pauseMs, limit.signal);
      pauseMs = Math.min(LAST_POLL_MS, pauseMs * 2);
    }
  }

  async #status(pid: number, limit: GuestLimit): Promise<z.infer<typeof statusSchema>> {
    try {
      return await this.#ask('guest-exec-status', { pid }, statusSchema, limit);
    } catch (error) {
      const forgotten = error instanceof MmioError && /PID|pid/.test(error.evidence ?? '');
      if (!forgotten || error.code !== 'refused') throw error;
      throw new MmioError('closed', 'the guest agent was restarted while a command ran', {
        evidence: error.evidence,
        hint: 'what the command wrote is lost with the agent; did the guest restart?',
        cause: error,
      });
    }
  }

  /** Writes a file of the guest anew. `bytes` is told how much is there after each piece. */
  async copyIn(from: string, to: string, limit: GuestLimit): Promise<number> {
    const file = await open(from, 'r');
    try {
      return await this.#withFile(to, 'wb', limit, async (handle, left) => {
        const piece = Buffer.alloc(PIECE_BYTES);
        let total = 0;
        for (;;) {
          const { bytesRead } = await file.read(piece, 0, PIECE_BYTES, null);
          if (bytesRead === 0) return total;
          await this.#writePiece(handle, piece.subarray(0, bytesRead), left);
          total += bytesRead;
        }
      });
    } finally {
      await file.close();
    }
  }

  async #writePiece(handle: number, piece: Buffer, left: () => GuestLimit): Promise<void> {
    for (let at = 0; at < piece.length;) {
      const args = { handle, 'buf-b64': piece.subarray(at).toString('base64') };
      const { count } = await this.#ask('guest-file-write', args, writtenSchema, left());
      if (count <= 0 || count > piece.length - at) {
        throw new MmioError('protocol', `the guest agent wrote ${count} bytes of a file`, {
          evidence: `${piece.length - at} were to be written`,
        });
      }
      at += count;
    }
  }

  /** Copies a file of the guest; how many bytes it has. */
  async copyOut(from: string, to: string, limit: GuestLimit): Promise<number> {
    const file = await open(to, 'w');
    try {
      return await this.#withFile(from, 'rb', limit, async (handle, left) => {
        let total = 0;
        for (;;) {
          const { data, eof } = await this.#readPiece(handle, left());
          for (let at = 0; at < data.length;) at += (await file.write(data, at)).bytesWritten;
          total += data.length;
          if (eof) return total;
        }
      });
    } finally {
      await file.close();
    }
  }

  /** What a file of the guest has behind an offset, at most a piece. */
  async readFrom(path: string, offset: number, limit: GuestLimit): Promise<Buffer> {
    return this.#withFile(path, 'rb', limit, async (handle, left) => {
      if (offset > 0) {
        const seek = { handle, offset, whence: 'set' };
        await this.#ask('guest-file-seek', seek, z.unknown(), left());
      }
      return (await this.#readPiece(handle, left())).data;
    });
  }

  async #readPiece(
    handle: number,
    limit: GuestLimit,
  ): Promise<{ readonly data: Buffer; readonly eof: boolean }> {
    const asked = { handle, count: PIECE_BYTES };
    const read = await this.#ask('guest-file-read', asked, readSchema, limit);
    const data = Buffer.from(read['buf-b64'], 'base64');
    if (data.length !== read.count || read.count > PIECE_BYTES) {
      throw new MmioError('protocol', 'the guest agent read something else than it says', {
        evidence: `${read.count} bytes, it says; ${data.length} came`,
      });
    }
    // A file that grows has no end; one that gives nothing has come to it.
    return { data, eof: read.eof || data.length === 0 };
  }

  async #withFile<T>(
    path: string,
    mode: string,
    limit: GuestLimit,
    work: (handle: number, left: () => GuestLimit) => Promise<T>,
  ): Promise<T> {
    const deadline = performance.now() + limit.timeoutMs;
    const left = () => ({ ...limit, timeoutMs: Math.max(0, deadline - performance.now()) });
    const handle = await this.#ask('guest-file-open', { path, mode }, z.number(), left());
    let result: T;
    try {
      result = await work(handle, left);
    } catch (error) {
      const shut = { timeoutMs: 1000 };
      await this.#ask('guest-file-close', { handle }, z.unknown(), shut).catch(() => undefined);
      throw error;
    }
    // Written data may fail to reach the disk just here.
    await this.#ask('guest-file-close', { handle }, z.unknown(), left());
    return result;
  }

  /** See `AgentChannel.lost`. */
  lost(reason: string): void {
    this.#channel.lost(reason);
  }

  async #ask<T>(
    command: string,
    args: Readonly<Record<string, unknown>> | undefined,
    schema: z.ZodType<T>,
    { timeoutMs, signal }: GuestLimit,
  ): Promise<T> {
    const limit = { timeoutMs, ...(signal && { signal }) };
    const reply = await this.#channel.execute(command, args, limit);
    const parsed = schema.safeParse(reply);
    if (parsed.success) return parsed.data;
    throw new MmioError('protocol', `the guest agent answered ${command} with something else`, {
      evidence: JSON.stringify(reply).slice(0, 200),
      hint: AGENT_HINT,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }
}

function exitOf(status: z.infer<typeof statusSchema>): GuestExit {
  const bytesOf = (text: string | undefined) => Buffer.from(text ?? '', 'base64');
  return {
    code: status.exitcode,
    signal: status.signal,
    stdout: bytesOf(status['out-data']),
    stderr: bytesOf(status['err-data']),
    cut: status['out-truncated'] === true || status['err-truncated'] === true,
  };
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    throw signal?.reason instanceof Error ? signal.reason : error;
  }
}
