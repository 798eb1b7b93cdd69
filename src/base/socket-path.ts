import { MmioError } from './errors.ts';

/** sun_path of unix(7), less the byte that ends it. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Throws MmioError `usage` for a path that no socket can have: the system would cut it. */
export function requireShort(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= MAX_SOCKET_PATH_BYTES) return;
  throw new MmioError('usage', 'the path of a socket is too long', {
    evidence: `${path} has ${bytes} bytes; the system takes ${MAX_SOCKET_PATH_BYTES}`,
    hint: 'name a folder with a shorter path',
  });
}
