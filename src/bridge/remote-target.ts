import { randomBytes } from 'node:crypto';
import { resolve as resolvePath } from 'node:path';
import type { RemoteTarget } from '../recording/session/remote.ts';
import { parseBridgeAddress } from './address.ts';

/** A new recording's way to a collector. Throws MmioError `usage` for an address that is none. */
export function remoteTarget(
  address: string,
  options: {
    readonly tokenFile?: string | undefined;
    readonly tlsCa?: string | undefined;
    readonly insecurePlaintext?: boolean | undefined;
  },
): RemoteTarget {
  const resolve = (path: string | undefined) => path && resolvePath(path);
  return {
    address: parseBridgeAddress(address).text,
    tokenFile: resolve(options.tokenFile),
    caFile: resolve(options.tlsCa),
    insecurePlaintext: options.insecurePlaintext ?? false,
    recording: randomBytes(16).toString('hex'),
  };
}
