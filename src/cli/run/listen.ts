/** Runs a collector until it is told to end. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve as resolvePath } from 'node:path';
import { MmioError, messageOf } from '../../base/errors.ts';
import { parseBridgeAddress } from '../../bridge/address.ts';
import type { CollectedRecordingState } from '../../bridge/collected-recording.ts';
import { Collector, type CollectorOptions } from '../../bridge/collector.ts';
import type { Certificate } from '../../bridge/listener.ts';
import { readToken } from '../../bridge/token.ts';
import { Interrupts } from '../interrupts.ts';
import { capturePathOf, startLivePage, type LivePage, type ShownRecording } from '../live-page.ts';
import { EXIT, say } from '../print.ts';

export interface ListenOptions extends Pick<
  CollectorOptions,
  'patterns' | 'format' | 'textExtra' | 'insecurePlaintext' | 'maxSessions'
> {
  readonly addresses: readonly string[];
  readonly tokenFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly stateDir: string | undefined;
  /** Shows what comes in a browser. */
  readonly page: { readonly port: number; readonly tokenFile: string | undefined } | undefined;
}

/** Returns the exit status. Throws MmioError where nothing can be listened on. */
export async function runListen(options: ListenOptions): Promise<number> {
  using interrupts = new Interrupts();
  const addresses = options.addresses.map(parseBridgeAddress);
  const onNetwork = addresses.some(({ kind }) => kind !== 'unix');
  const page = await startPage(options);
  const collector = await Collector.open({
    addresses,
    patterns: options.patterns.map((pattern) => resolvePath(pattern)),
    format: options.format,
    textExtra: options.textExtra,
    token: onNetwork ? readToken(options.tokenFile) : undefined,
    certificate: addresses.some(({ kind }) => kind === 'tls')
      ? readCertificate(options)
      : undefined,
    insecurePlaintext: options.insecurePlaintext,
    stateDir: resolvePath(options.stateDir ?? defaultStateDir()),
    maxSessions: options.maxSessions,
    notice: say,
    onRecording: (recording) => page?.show(shownOf(recording)),
  });
  for (const { text } of addresses) say(`listening on ${text}`);
  if (page !== undefined) say(`page      ${addressOf(page, options.page?.tokenFile)}`);
  await new Promise<void>((resolve) => interrupts.listen(() => resolve()));
  await collector.close();
  await page?.close();
  return EXIT.complete;
}

/** Throws MmioError where the page cannot be served. */
async function startPage({ page: wanted, patterns }: ListenOptions): Promise<LivePage | undefined> {
  if (wanted === undefined) return undefined;
  capturePathOf(patterns);
  const { port, tokenFile } = wanted;
  return startLivePage({
    port,
    token: tokenFile === undefined ? undefined : pageToken(tokenFile),
  });
}

/** Who has named a token knows it, and logs are read by others, too. */
function addressOf({ url }: LivePage, tokenFile: string | undefined): string {
  if (tokenFile === undefined) return url;
  return `${url.replace(/#.*/, '#')} and behind it the token in ${tokenFile}`;
}

/** One that a browser can send. */
function pageToken(file: string): string {
  const token = readToken(file);
  if (/^[\w.~-]+$/.test(token)) return token;
  throw new MmioError('usage', 'the token cannot be part of an address', {
    evidence: `${file} has other characters than letters, digits and ._~-`,
    hint: 'make one with: openssl rand -hex 32 > FILE',
  });
}

function shownOf({ id, name, outputs, state }: CollectedRecordingState): ShownRecording {
  return { id: id.slice(0, 12), name, path: capturePathOf(outputs), state };
}

/** Where the XDG base directory specification wants it; systemd names its own. */
function defaultStateDir(): string {
  const { STATE_DIRECTORY: systemd, XDG_STATE_HOME: xdg } = process.env;
  return systemd ?? join(xdg ?? join(homedir(), '.local/state'), 'mmiobridge');
}

function readCertificate({ certFile, keyFile }: ListenOptions): Certificate {
  if (certFile === undefined || keyFile === undefined) {
    throw new MmioError('usage', 'tls:// needs a certificate and its key', {
      evidence: `--tls-cert ${certFile ?? 'is missing'}, --tls-key ${keyFile ?? 'is missing'}`,
      hint: 'docs/bridge.md has the two openssl lines that make them',
    });
  }
  try {
    return { cert: readFileSync(certFile), key: readFileSync(keyFile) };
  } catch (error) {
    throw new MmioError('usage', 'cannot read the certificate or its key', {
      evidence: messageOf(error),
      cause: error,
    });
  }
}
