/** Sockets that a collector listens on, closed to all whom it is not meant for. */
import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { TLSSocketOptions } from 'node:tls';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { requireShort } from '../base/socket-path.ts';
import type { BridgeAddress } from './address.ts';

export interface Certificate {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** Listens until the server is closed. Throws MmioError `io`. */
export async function listenOn(
  address: BridgeAddress,
  certificate: Certificate | undefined,
  onSocket: (socket: Socket) => void,
): Promise<Server> {
  const wrap = address.kind === 'tls' ? await tlsServer(certificate) : undefined;
  const server = createServer((socket) => onSocket(wrap?.(socket) ?? socket));
  try {
    await bind(server, address);
  } catch (error) {
    if (error instanceof MmioError) throw error;
    throw new MmioError('io', `cannot listen on ${address.text}`, {
      evidence: messageOf(error),
      hint:
        systemCodeOf(error) === 'EADDRINUSE'
          ? 'does a collector run there already?'
          : 'name an address of this machine',
      cause: error,
    });
  }
  return server;
}

async function bind(server: Server, address: BridgeAddress): Promise<void> {
  if (address.kind !== 'unix') return listening(server, address);
  requireShort(address.path);
  const found = lstatSync(address.path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isSocket()) {
    throw new MmioError('refused', `${address.path} is there, and is no socket`, {
      hint: 'name one that is not there, or remove it',
    });
  }
  if (found !== undefined && (await isStale(address.path))) rmSync(address.path);
  // The socket is made by the call itself, and nobody else may reach it even for a moment.
  const before = process.umask(0o177);
  const bound = listening(server, address);
  process.umask(before);
  await bound;
  chmodSync(address.path, 0o600);
}

function listening(server: Server, address: BridgeAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const done = () => {
      server.off('error', reject);
      resolve();
    };
    if (address.kind === 'unix') server.listen(address.path, done);
    else server.listen(address.port, address.host, done);
  });
}

/** A socket that a killed collector left: it is there, and nobody answers. */
function isStale(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    const settle = (stale: boolean) => {
      probe.destroy();
      resolve(stale);
    };
    probe.once('connect', () => settle(false));
    probe.once('error', (error) => settle(systemCodeOf(error) === 'ECONNREFUSED'));
  });
}

/** The handshake is the connection's: who does not end it in time is dropped as one that is silent. */
async function tlsServer(
  certificate: Certificate | undefined,
): Promise<(socket: Socket) => Socket> {
  const { TLSSocket, createSecureContext } = await import('node:tls');
  let secureContext: TLSSocketOptions['secureContext'];
  try {
    secureContext = createSecureContext({ ...certificate, minVersion: 'TLSv1.2' });
  } catch (error) {
    throw new MmioError('usage', 'the certificate and its key cannot be used', {
      evidence: messageOf(error),
      hint: 'both as PEM, in --tls-cert and --tls-key',
      cause: error,
    });
  }
  return (socket) => {
    const secure = new TLSSocket(socket, { isServer: true, secureContext });
    socket.on('error', (error) => secure.destroy(error));
    return secure;
  };
}
