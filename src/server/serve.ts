/** HTTP for the page and for downloads, WebSocket for everything that the page shows. */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename } from 'node:path';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { messageOf, MmioError, systemCodeOf } from '../base/errors.ts';
import { OUTPUT_FORMATS, type OutputFormat } from '../sinks/index.ts';
import { StreamOutput } from '../sinks/output.ts';
import {
  bearerOf,
  hostIsOurs,
  originIsOurs,
  protocolTokenOf,
  tokenMatches,
} from './access-control.ts';
import { writeDownload } from './download.ts';
import type { CaptureFeed } from './capture-feed.ts';
import { PageClient } from './page-client.ts';
import type { Recordings } from './recordings.ts';
import { readStaticFiles } from './static-files.ts';

export const SUBPROTOCOL = 'mmiobridge.v1';

const TICK_MS = 200;
const MAX_CLIENTS = 100;
const MAX_MESSAGE_BYTES = 64 << 10;
const SUFFIXES: Readonly<Record<OutputFormat, string>> = {
  mmiotrace: '.mmiotrace',
  ndjson: '.ndjson',
  capture: '.mmiocap',
};

// What the page is made of comes from here, and so does everything that it asks for.
const HEADERS = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
} as const;

export interface ServeOptions {
  /** More may come while it is served. */
  readonly recordings: Recordings;
  /** 0: any that is free. */
  readonly port: number;
  readonly token: string;
  /** What a person who looks after the server should know; never has the token in it. */
  readonly log: (line: string) => void;
}

export interface PageServer {
  /** With the token in its fragment, which browsers keep to themselves. */
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/** Serves on loopback. Throws MmioError `not-found` for the page, `refused` for the port. */
export async function servePage(options: ServeOptions): Promise<PageServer> {
  const files = readStaticFiles();
  const { log, token, recordings } = options;
  const clients = new Set<PageClient>();
  // By which pages know that it was started anew.
  const instance = randomUUID();
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  });
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      log(`a request failed: ${messageOf(error)}`);
      response.destroy();
    });
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    if (!hostIsOurs(request) || !originIsOurs(request)) {
      log(`refused a request for host ${quoted(request.headers.host)}`);
      end(response, 403, 'This server answers to localhost alone.');
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      end(response, 405, 'GET alone.');
      return;
    }
    const url = new URL(request.url ?? '/', 'http://localhost');
    const file = files.get(url.pathname);
    if (file !== undefined) {
      response.setHeader('Content-Type', file.type);
      response.end(request.method === 'HEAD' ? undefined : file.bytes);
      return;
    }
    if (url.pathname !== '/download' && url.pathname !== '/recordings') {
      end(response, 404, 'There is nothing here.');
      return;
    }
    if (!tokenMatches(bearerOf(request), token)) {
      log(`refused ${url.pathname.slice(1)} without the right token`);
      end(response, 401, 'The token is missing or wrong.');
      return;
    }
    if (url.pathname === '/recordings') {
      response.setHeader('Content-Type', 'application/json');
      response.setHeader('Mmiobridge-Server', instance);
      response.end(JSON.stringify(await recordings.list()));
      return;
    }
    const id = recordingOf(url);
    const feed = await recordings.acquire(id);
    if (feed === undefined) {
      end(response, 404, 'There is no such recording.');
      return;
    }
    try {
      await download(feed, url.searchParams, response);
    } finally {
      recordings.release(id);
    }
  }

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    const refuse = (status: string, reason: string): void => {
      log(`refused a page: ${reason}`);
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    };
    if (!hostIsOurs(request)) refuse('403 Forbidden', `host ${quoted(request.headers.host)}`);
    else if (!originIsOurs(request)) {
      refuse('403 Forbidden', `origin ${quoted(request.headers.origin)}`);
    } else if (!tokenMatches(protocolTokenOf(request), token)) {
      refuse('401 Unauthorized', 'the token is missing or wrong');
    } else if (clients.size >= MAX_CLIENTS) {
      refuse('503 Service Unavailable', `${MAX_CLIENTS} are open`);
    } else {
      open(request, socket, head).catch((error: unknown) => {
        refuse('404 Not Found', messageOf(error));
      });
    }
  });

  async function open(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const id = recordingOf(new URL(request.url ?? '/', 'http://localhost'));
    const feed = await recordings.acquire(id);
    if (feed === undefined) throw new MmioError('not-found', `there is no recording ${quoted(id)}`);
    // Whatever becomes of the handshake: a feed that nobody gives back is read for good.
    let isPage = false;
    const giveBack = (): void => {
      if (!isPage) recordings.release(id);
    };
    if (socket.destroyed) {
      giveBack();
      return;
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      isPage = true;
      const client = new PageClient(webSocket, feed, (reason) =>
        log(`let a page go: it ${reason}`),
      );
      clients.add(client);
      webSocket.on('close', () => {
        clients.delete(client);
        recordings.release(id);
      });
      client.tick();
    });
    // A request that is no proper handshake was answered, and no page came of it.
    giveBack();
  }

  const timer = setInterval(() => {
    for (const client of clients) client.tick();
  }, TICK_MS);

  const close = async (): Promise<void> => {
    clearInterval(timer);
    for (const client of clients) client.close();
    sockets.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    recordings.close();
  };
  try {
    const port = await listen(server, options.port);
    return { url: `http://127.0.0.1:${port}/#${token}`, port, close };
  } catch (error) {
    clearInterval(timer);
    recordings.close();
    throw error;
  }
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const taken = systemCodeOf(error) === 'EADDRINUSE';
      reject(
        new MmioError('refused', `cannot serve the page on port ${port}`, {
          evidence: messageOf(error),
          hint: taken
            ? 'another program has it; leave the port out and any free one is taken'
            : undefined,
          cause: error,
        }),
      );
    });
    server.listen(port, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}

/** The one that is asked for. */
function recordingOf(url: URL): string {
  return url.searchParams.get('recording') ?? '';
}

async function download(
  feed: CaptureFeed,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const format = OUTPUT_FORMATS.find((known) => known === query.get('format'));
  const from = query.get('from');
  const to = query.get('to');
  const span = {
    fromNs: from === null ? -Infinity : Number(from),
    toNs: to === null ? Infinity : Number(to),
  };
  if (format === undefined || Number.isNaN(span.fromNs) || Number.isNaN(span.toNs)) {
    end(
      response,
      400,
      `format is one of ${OUTPUT_FORMATS.join(', ')}; from and to are nanoseconds.`,
    );
    return;
  }
  const name = basename(feed.path)
    .replace(/\.mmiocap$/, '')
    .replace(/[^\w.-]/g, '_');
  const part = from === null && to === null ? '' : '-span';
  response.setHeader('Content-Type', 'application/octet-stream');
  response.setHeader(
    'Content-Disposition',
    `attachment; filename="${name}${part}${SUFFIXES[format]}"`,
  );
  const whole = part === '' ? undefined : span;
  await writeDownload(
    feed.path,
    feed.wholeBytes,
    format,
    whole,
    new StreamOutput(response, 'the browser'),
  );
  response.end();
}

function end(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status;
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(`${text}\n`);
}

/** What a stranger sent, harmless and short. */
function quoted(text: string | undefined): string {
  return JSON.stringify(text?.slice(0, 100) ?? null);
}
