/** Connects to a collector. */
import { readFileSync } from 'node:fs';
import { connect as connectPlain, isIP, type Socket } from 'node:net';
import { MmioError, messageOf, systemCodeOf, describeError } from '../base/errors.ts';
import type { BridgeAddress } from './address.ts';

const CONNECT_LIMIT_MS = 5000;

/** Throws MmioError `refused`, `timeout` or `usage`. */
export async function dial(address: BridgeAddress, caFile: string | undefined): Promise<Socket> {
  const socket = await open(address, caFile);
  const connected = address.kind === 'tls' ? 'secureConnect' : 'connect';
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy();
      const evidence = `no answer within ${CONNECT_LIMIT_MS / 1000} s`;
      reject(
        new MmioError('timeout', `cannot reach the collector at ${address.text}`, { evidence }),
      );
    }, CONNECT_LIMIT_MS);
    const fail = (error: Error) => {
      clearTimeout(timer);
      socket.destroy();
      reject(
        new MmioError('closed', `cannot reach the collector at ${address.text}`, {
          evidence: describeError(error),
          hint: hintFor(systemCodeOf(error) ?? '', address),
          cause: error,
        }),
      );
    };
    socket.once('error', fail);
    socket.once(connected, () => {
      clearTimeout(timer);
      socket.off('error', fail);
      resolve(socket);
    });
  });
}

async function open(address: BridgeAddress, caFile: string | undefined): Promise<Socket> {
  if (address.kind === 'unix') return connectPlain(address.path);
  const { host, port } = address;
  if (address.kind === 'tcp') return connectPlain({ host, port });
  const { connect } = await import('node:tls');
  const ca = caFile === undefined ? {} : { ca: readCertificates(caFile) };
  // A name is sent for the collector to choose its certificate by; an address is no name.
  return connect({ host, port, ...(isIP(host) === 0 && { servername: host }), ...ca });
}

function readCertificates(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new MmioError('usage', 'cannot read the certificate', {
      evidence: messageOf(error),
      hint: "--tls-ca takes the collector's certificate, or that of the authority that signed it",
      cause: error,
    });
  }
}

function hintFor(code: string, address: BridgeAddress): string | undefined {
  if (code === 'ECONNREFUSED' || code === 'ENOENT') {
    return `start one there: mmiobridge listen ${address.text}`;
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'the certificate is for another name: use that, or make one with this name in its subjectAltName';
  }
  if (/CERT|ISSUER/.test(code)) return "trust it with --tls-ca FILE: the collector's certificate";
  return undefined;
}
