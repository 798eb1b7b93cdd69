import { MmioError } from './errors.ts';

/** sun_path of unix(7), less the byte that ends it. */
const MAX_BYTES = 107;

/** Throws MmioError `usage` for a path that no socket can have: the system would cut it. */
export function requireShort(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= MAX_BYTES) return;
  throw new MmioError('usage', 'the path of a socket is too long', {
    evidence: `${path} has ${bytes} bytes; the system takes ${MAX_BYTES}`,
    hint: 'name a folder with a shorter path',
  });
}
