import { createServer, type Server, type Socket } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface AgentRequest {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** What a peer sends for a request: bytes, one after the other, each as a write of its own. */
export type AgentAnswer = (request: AgentRequest, send: (data: string | Buffer) => void) => void;

/** The end of a guest agent's chardev, with an agent behind it that a test writes. */
export class AgentPeer implements AsyncDisposable {
  readonly path: string;
  /** Every command that came, syncs left out. */
  readonly commands: string[] = [];
  readonly #dir: string;
  readonly #server: Server;
  #socket: Socket | undefined;

  private constructor(dir: string, server: Server) {
    this.#dir = dir;
    this.path = join(dir, 'qga');
    this.#server = server;
  }

  /** @param sync whether syncs are answered as they should be; else `answer` gets them, too */
  static async open(answer: AgentAnswer, sync = true): Promise<AgentPeer> {
    const dir = await mkdtemp(join(tmpdir(), 'qga-'));
    const server = createServer();
    const peer = new AgentPeer(dir, server);
    server.on('connection', (socket) => peer.#serve(socket, answer, sync));
    await new Promise<void>((resolve) => {
      server.listen(peer.path, resolve);
    });
    return peer;
  }

  #serve(socket: Socket, answer: AgentAnswer, sync: boolean): void {
    this.#socket = socket;
    socket.on('error', () => undefined);
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk.replaceAll('\xff', '');
      for (let end; (end = text.indexOf('\n')) !== -1; text = text.slice(end + 1)) {
        const line = Buffer.from(text.slice(0, end), 'latin1').toString('utf8');
        const request = { arguments: {}, ...(JSON.parse(line) as object) } as AgentRequest;
        const send = (data: string | Buffer) => void (socket.destroyed || socket.write(data));
        if (request.execute === 'guest-sync-delimited' && sync) {
          send(Buffer.concat([Buffer.of(0xff), reply(request.arguments['id'])]));
          continue;
        }
        if (request.execute !== 'guest-sync-delimited') this.commands.push(request.execute);
        answer(request, send);
      }
    });
  }

  /** Hangs up. */
  drop(): void {
    this.#socket?.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** A reply as the agent sends it. */
export function reply(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify({ return: value })}\n`);
}
