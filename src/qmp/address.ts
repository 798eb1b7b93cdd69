import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { MAX_SOCKET_PATH_BYTES } from '../base/socket-path.ts';

/** Where a QMP server listens, as `net.connect` takes it. */
export type QmpTarget =
  { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Reads a path, `unix:PATH`, `tcp:HOST:PORT` or `HOST:PORT` (`[::1]:4444` for IPv6). Throws
 * MmioError `usage`.
 */
export function parseAddress(address: string): QmpTarget {
  const explicitTcp = address.startsWith('tcp:');
  const tcp = /^(?:tcp:)?(\[[^\]]+\]|[^/:]*):(\d+)$/.exec(address);
  if (tcp !== null && (explicitTcp || !address.startsWith('unix:'))) {
    const port = Number(tcp[2]);
    if (port >= 1 && port <= 65535) {
      return { host: (tcp[1] ?? '').replace(/^\[(.*)\]$/, '$1') || 'localhost', port };
    }
  }
  if (explicitTcp || tcp !== null) {
    throw new MmioError('usage', 'not an address of a QMP server', {
      evidence: address,
      hint: 'write a path, unix:PATH, or tcp:HOST:PORT with a port from 1 to 65535',
    });
  }
  const path = address.startsWith('unix:') ? address.slice('unix:'.length) : address;
  if (path === '' || path.includes('\0') || Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw new MmioError('usage', 'not a path that a unix socket can have', {
      evidence: address,
      hint: `it needs 1 to ${MAX_SOCKET_PATH_BYTES} bytes; a long one can be given relative, or through a symbolic link`,
    });
  }
  return { path };
}

/** Says what went wrong where a connection could not be made, and what to do about it. */
export function connectError(address: string, target: QmpTarget, error: unknown): MmioError {
  const detail = { evidence: `${address}: ${messageOf(error)}`, cause: error };
  const where = 'path' in target ? target.path : address;
  switch (systemCodeOf(error)) {
    case 'ENOENT':
      return new MmioError('not-found', `there is no QMP socket ${where}`, {
        ...detail,
        hint: `check the path, or start QEMU with -qmp unix:${where},server=on,wait=off`,
      });
    case 'ECONNREFUSED':
      return new MmioError('refused', `nobody listens on ${where}`, {
        ...detail,
        hint: 'the QEMU that made this socket has ended, or never offered QMP here',
      });
    case 'EACCES':
    case 'EPERM':
      return new MmioError('refused', `not allowed to connect to ${where}`, {
        ...detail,
        hint: 'run this as root, or as the user that QEMU runs as',
      });
    case 'EAGAIN':
      return new MmioError('refused', `${where} takes no more connections`, {
        ...detail,
        hint: SOCKET_IS_HELD,
      });
    default:
      return new MmioError('io', `cannot connect to ${where}`, detail);
  }
}

/** A QMP server of QEMU talks to one client; the next one waits in the kernel, ungreeted. */
export const SOCKET_IS_HELD =
  'another program may hold this socket: QEMU serves one QMP client at a time. ' +
  'End it, or give QEMU one more -qmp';
