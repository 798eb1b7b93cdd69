/** The socket of a running recording: `mark`, `status` and `stop` talk to it, a JSON line each. */
import { chmodSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { MmioError, messageOf } from '../../base/errors.ts';

export type ControlRequest =
  | { readonly request: 'mark'; readonly text: string }
  | { readonly request: 'status' }
  | { readonly request: 'stop' };

export type ControlReply =
  { readonly ok: true; readonly result: unknown } | { readonly ok: false; readonly error: string };

/** Longer requests are refused: nobody marks with a book. */
const MAX_REQUEST_BYTES = 64 * 1024;
const REPLY_TIMEOUT_MS = 5000;

export function serveControl(
  path: string,
  handle: (request: ControlRequest) => Promise<unknown>,
): Promise<Server> {
  // A client that has asked ends its side; the answer still has to go back.
  const server = createServer({ allowHalfOpen: true }, (socket) => serveOne(socket, handle));
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      chmodSync(path, 0o600);
      resolve(server);
    });
  });
}

function serveOne(socket: Socket, handle: (request: ControlRequest) => Promise<unknown>): void {
  let text = '';
  socket.setEncoding('utf8');
  socket.setTimeout(REPLY_TIMEOUT_MS, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: string) => {
    text += chunk;
    if (text.length > MAX_REQUEST_BYTES) {
      socket.end(reply({ ok: false, error: 'the request is too long' }));
      return;
    }
    const newline = text.indexOf('\n');
    if (newline < 0) return;
    const line = text.slice(0, newline);
    const request = parseRequest(line);
    text = '';
    if (request === undefined) {
      socket.end(reply({ ok: false, error: 'not a request that is known' }));
      return;
    }
    // Who asked has given up by now, and told that it failed.
    if (isLate(line)) {
      socket.end(reply({ ok: false, error: 'it came too late' }));
      return;
    }
    void handle(request).then(
      (result) => socket.end(reply({ ok: true, result })),
      (error: unknown) => socket.end(reply({ ok: false, error: messageOf(error) })),
    );
  });
}

function reply(message: ControlReply): string {
  return `${JSON.stringify(message)}\n`;
}

/** Whether whoever asked, on this machine, waits no longer. */
function isLate(line: string): boolean {
  const until = (JSON.parse(line) as { readonly untilMs?: unknown }).untilMs;
  return typeof until === 'number' && Date.now() > until;
}

/** undefined for what is no request that is known. */
export function parseRequest(line: string): ControlRequest | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('request' in value)) return undefined;
  if (value.request === 'status' || value.request === 'stop') return { request: value.request };
  if (value.request === 'mark' && 'text' in value && typeof value.text === 'string') {
    return { request: 'mark', text: value.text };
  }
  return undefined;
}

/** Asks a running recording. Throws MmioError `closed`, `timeout` or `refused`. */
export function askControl(path: string, request: ControlRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(REPLY_TIMEOUT_MS, () => {
      socket.destroy();
      reject(new MmioError('timeout', 'the recording does not answer', { evidence: path }));
    });
    socket.on('error', (error) =>
      reject(
        new MmioError('closed', 'the recording cannot be reached', {
          evidence: `${path}: ${messageOf(error)}`,
          hint: '`mmiobridge status` lists the recordings',
          cause: error,
        }),
      ),
    );
    socket.on('data', (chunk: string) => (text += chunk));
    socket.on('end', () => {
      try {
        const answer = JSON.parse(text) as ControlReply;
        if (answer.ok) resolve(answer.result);
        else reject(new MmioError('refused', 'the recording refused', { evidence: answer.error }));
      } catch (error) {
        reject(
          new MmioError('protocol', 'the recording gave no answer', {
            evidence: text,
            cause: error,
          }),
        );
      }
    });
    const untilMs = Date.now() + REPLY_TIMEOUT_MS;
    socket.end(`${JSON.stringify({ ...request, untilMs })}\n`);
  });
}
