import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { MmioError } from '../../base/errors.ts';
import { formatOfPath } from '../../sinks/index.ts';
import { formatOption, gather, textExtraOption, parseCount, parsePort } from '../parse.ts';

const DEFAULT_ADDRESS = 'tcp://127.0.0.1:7420';
const DEFAULT_PATTERN = '{host}-{device}-{time}.mmiocap';
const DEFAULT_SESSIONS = 64;

const HELP = `
In -o, {host}, {device}, {session} and {time} (of its beginning, UTC) stand for those of the
recording. A name that is taken gets a number: nothing is ever overwritten.

Examples:
  For recordings on this machine, or through an ssh tunnel:
    MMIOBRIDGE_TOKEN=… mmiobridge listen -o '{host}-{device}-{time}.mmiotrace'
  For those of other hosts:
    mmiobridge listen tls://0.0.0.0:7420 --tls-cert cert.pem --tls-key key.pem --token-file token
  And look at them while they come:
    mmiobridge listen --live=8080 --token-file token

Ends with Ctrl-C; what was recorded meanwhile comes when it is started again.`;

export function listenCommand(): AnyCommand {
  const command = new Command('listen')
    .summary('collect recordings that are made elsewhere (record --send-to)')
    .description(
      'Takes any number of recordings at once, and writes each as record would.\n' +
        'What it has on its disk it acknowledges; the recorders keep the rest.',
    )
    .argument(
      '[address...]',
      `unix:PATH, tcp://HOST:PORT or tls://HOST:PORT (default: ${DEFAULT_ADDRESS})`,
    )
    .option(
      '-o, --output <pattern>',
      `what to write, as for record. May be given several times (default: ${DEFAULT_PATTERN})`,
      gather,
    )
    .addOption(formatOption())
    .addOption(textExtraOption())
    .option('--token-file <file>', 'the token that senders must show (default: $MMIOBRIDGE_TOKEN)')
    .option('--tls-cert <file>', 'certificate for tls://, PEM')
    .option('--tls-key <file>', 'its key, PEM')
    .option('--insecure-plaintext', 'take tcp:// from other machines, unencrypted')
    .option(
      '--state <dir>',
      'where to note how far each recording has come (default: ~/.local/state/mmiobridge)',
    )
    .option('--max-sessions <n>', 'so many recordings at once', parseCount, DEFAULT_SESSIONS)
    .option(
      '--live [port]',
      'show what comes in a browser on this machine; needs a .mmiocap output (default: any free port)',
      parsePort,
    )
    .option(
      '--live-token-file <file>',
      "the page's token, for those who do not want a new one in the address that is printed",
    )
    .addHelpText('after', HELP);
  command.action(async (addresses, options) => {
    const patterns = options.output ?? [DEFAULT_PATTERN];
    for (const pattern of patterns) formatOfPath(pattern, options.format);
    const { live, liveTokenFile } = options;
    if (live === undefined && liveTokenFile !== undefined) {
      throw new MmioError('usage', 'there is no page for that token', {
        evidence: `--live-token-file ${liveTokenFile}, and no --live`,
        hint: 'add --live',
      });
    }
    const { runListen } = await import('../run/listen.ts');
    process.exitCode = await runListen({
      addresses: addresses.length === 0 ? [DEFAULT_ADDRESS] : addresses,
      patterns,
      format: options.format,
      textExtra: options.textExtra,
      tokenFile: options.tokenFile,
      certFile: options.tlsCert,
      keyFile: options.tlsKey,
      insecurePlaintext: options.insecurePlaintext ?? false,
      stateDir: options.state,
      maxSessions: options.maxSessions,
      page:
        live === undefined
          ? undefined
          : { port: live === true ? 0 : live, tokenFile: liveTokenFile },
    });
  });
  return command as unknown as AnyCommand;
}
