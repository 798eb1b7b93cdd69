/** Who may talk to the server: pages that it served itself, and who has the token. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);
const TOKEN_PROTOCOL = 'token.';

export function newToken(): string {
  return randomBytes(16).toString('hex');
}

/**
 * Whether the request names this machine as its host. A page of another site whose name leads to
 * us (DNS rebinding) names its own. The port may be another: a tunnel's.
 */
export function hostIsOurs(request: IncomingMessage): boolean {
  const host = /^(\[[0-9a-f:]+\]|[^:/@]+)(?::\d+)?$/i.exec(request.headers.host ?? '')?.[1];
  return host !== undefined && LOOPBACK.has(host.toLowerCase());
}

/** Whether a request that a browser makes for a page is made for one of ours. */
export function originIsOurs(request: IncomingMessage): boolean {
  const { origin, host } = request.headers;
  return origin === undefined || origin === `http://${host}`;
}

/** Constant time, whatever is given. */
export function tokenMatches(given: string | undefined, token: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given ?? ''), digest(token));
}

/** `Authorization: Bearer TOKEN` */
export function bearerOf(request: IncomingMessage): string | undefined {
  return /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
}

/** What a browser's WebSocket can carry: a subprotocol `token.TOKEN` beside ours. */
export function protocolTokenOf(request: IncomingMessage): string | undefined {
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',');
  return offered
    .map((protocol) => protocol.trim())
    .find((protocol) => protocol.startsWith(TOKEN_PROTOCOL))
    ?.slice(TOKEN_PROTOCOL.length);
}
