import { resolve as resolvePath } from 'node:path';
import { MmioError } from '../base/errors.ts';

/** What `listen` takes where it is told nothing. */
export const DEFAULT_PORT = 7420;
const LOOPBACK = '127.0.0.1';

export type BridgeAddress =
  | { readonly kind: 'unix'; readonly text: string; readonly path: string }
  | {
      readonly kind: 'tcp' | 'tls';
      readonly text: string;
      readonly host: string;
      readonly port: number;
    };

/**
 * `unix:PATH`, `tcp://HOST:PORT`, `tls://HOST:PORT`; the host is this one, and the port 7420, where
 * they are left out. Throws MmioError `usage`.
 */
export function parseBridgeAddress(text: string): BridgeAddress {
  if (text.startsWith('unix:') && text.length > 'unix:'.length) {
    const path = resolvePath(text.slice('unix:'.length).replace(/^\/\/(?=\/)/, ''));
    return { kind: 'unix', text: `unix:${path}`, path };
  }
  const match = /^(tcp|tls):\/\/(\[[0-9a-fA-F:.%a-z]+\]|[^:/[\]]*)(?::(\d{1,5}))?\/?$/.exec(text);
  const port = Number(match?.[3] ?? DEFAULT_PORT);
  if (match === null || port > 65535) {
    throw new MmioError('usage', `${text} is no address of a collector`, {
      evidence: 'neither unix:PATH nor tcp://HOST:PORT nor tls://HOST:PORT',
      hint: `for example tls://workstation:${DEFAULT_PORT}`,
    });
  }
  const kind = match[1] === 'tls' ? 'tls' : 'tcp';
  const host = (match[2] ?? '').replace(/^\[|\]$/g, '') || LOOPBACK;
  const shown = host.includes(':') ? `[${host}]` : host;
  return { kind, text: `${kind}://${shown}:${port}`, host, port };
}

/** Whether it stays on this machine. */
export function isLocal(address: BridgeAddress): boolean {
  if (address.kind === 'unix') return true;
  return /^(localhost|127(\.\d{1,3}){3}|::1)$/i.test(address.host);
}

/** Throws MmioError `usage` for plain TCP to or from other machines, unless that was asked for. */
export function requireConfidential(address: BridgeAddress, insecurePlaintext: boolean): void {
  if (address.kind !== 'tcp' || isLocal(address) || insecurePlaintext) return;
  throw new MmioError('usage', `${address.text} would go over the network unencrypted`, {
    evidence: `${address.host} is not this machine; the token and all accesses could be read on the way`,
    hint: 'take tls://, or a tunnel to tcp://127.0.0.1; --insecure-plaintext allows it',
  });
}
