import { resolve as resolvePath } from 'node:path';
import { Command, Option } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { MmioError } from '../../base/errors.ts';
import type { RemoteTarget } from '../../recording/session/remote.ts';
import { OUTPUT_FORMATS, formatOfPath, type OutputFormat } from '../../sinks/index.ts';
import {
  gather,
  textExtraOption,
  parseCount,
  parsePort,
  parseSeconds,
  parseSize,
} from '../parse.ts';
import { answer, say } from '../print.ts';

const DEFAULT_OUTPUT = 'trace.mmiocap';

const HELP = `
Examples:
  Start a VM and record the device that is passed through to it:
    mmiobridge record -o trace.mmiotrace -- qemu-system-x86_64 -accel kvm -m 4G \\
      -device vfio-pci,host=0000:01:00.0 disk.img
  Record an emulated device of a VM that runs, by its QEMU id, as text and as a capture:
    mmiobridge record --qmp /run/vm/qmp.sock --device nic0 -o nic.mmiotrace -o nic.mmiocap
  Look at it in a browser while it is recorded:
    mmiobridge record --live --device nic0 -o nic.mmiocap -- qemu-system-x86_64 …
  Write nothing here: a collector elsewhere does:
    mmiobridge record --to tls://workstation:7420 --tls-ca cert.pem --token-file token -- qemu-system-x86_64 …
  Watch the writes go by:
    mmiobridge record --device nic0 -o - -- qemu-system-x86_64 … | grep '^W'

On a terminal: m asks for a mark, q ends the recording (and a VM that it started),
Ctrl-C does the same, twice kills.

Exit status: 0 complete; 1 failure; 2 usage; 3 recorded, but incomplete; 130 interrupted.`;

interface Targets {
  readonly format: OutputFormat | undefined;
  readonly collector: string | undefined;
}

/** What --to was given: a format, a collector, or both. Throws MmioError `usage`. */
async function sortTargets(words: readonly string[]): Promise<Targets> {
  let format: OutputFormat | undefined;
  let collector: string | undefined;
  for (const word of words) {
    const known = OUTPUT_FORMATS.find((it) => it === word);
    if (known !== undefined) {
      format = known;
      continue;
    }
    const { isBridgeAddress, parseBridgeAddress } = await import('../../bridge/address.ts');
    if (!isBridgeAddress(word)) {
      throw new MmioError('usage', `--to ${word} is neither a format nor a collector`, {
        evidence: `formats are ${OUTPUT_FORMATS.join(', ')}; collectors are unix:PATH, tcp://HOST:PORT, tls://HOST:PORT`,
        hint: '-o names a file',
      });
    }
    if (collector !== undefined) {
      throw new MmioError('usage', 'a recording goes to one collector', {
        evidence: `${collector} and ${word}`,
        hint: 'let the one collector write several outputs: listen -o … -o …',
      });
    }
    collector = parseBridgeAddress(word).text;
  }
  return { format, collector };
}

async function remoteTarget(
  address: string,
  options: { tokenFile?: string; tlsCa?: string; insecurePlaintext?: true },
): Promise<RemoteTarget> {
  const { randomBytes } = await import('node:crypto');
  const resolve = (path: string | undefined) => path && resolvePath(path);
  return {
    address,
    tokenFile: resolve(options.tokenFile),
    caFile: resolve(options.tlsCa),
    insecurePlaintext: options.insecurePlaintext ?? false,
    recording: randomBytes(16).toString('hex'),
  };
}

export function recordCommand(): AnyCommand {
  const command = new Command('record')
    .summary('record a guest: start QEMU, or attach to one with --qmp')
    .description(
      "Records every access of a QEMU guest to a PCI device, as Linux's mmiotrace would.\n" +
        'Starts the QEMU whose command line follows --, or attaches to one that runs.',
    )
    .argument('[qemu...]', "QEMU's command line, behind --")
    .option(
      '-o, --output <file>',
      `where to write: .mmiotrace or .txt (text), .mmiocap (capture), .ndjson; .gz compresses; - is standard output. May be given several times (default: ${DEFAULT_OUTPUT})`,
      gather,
    )
    .option(
      '-d, --device <id>',
      'what to record: a QEMU id, a guest address, a host address or a type (default: all vfio devices). May be given several times',
      gather,
    )
    .option('--qmp <socket>', 'attach to the QEMU that listens here (path, or host:port)')
    .addOption(
      new Option(
        '--source <what>',
        "who tells of the accesses: QEMU's log, KVM's tracepoints alone (needs root), or a plugin in a QEMU of TCG that is started",
      )
        .choices(['log', 'kvm', 'plugin'])
        .default('log' as const),
    )
    .option('--pc', "record the guest's program counters, too, from KVM's tracepoints; needs root")
    .addOption(new Option('--irq').default(true).hideHelp())
    .option(
      '--no-irq',
      'leave the interrupts of passed-through devices to KVM: faster, and not in the recording',
    )
    .option('--dry-run', 'print the command line that QEMU would get, and why, and do nothing')
    .option(
      '--to <what>',
      `where else to: a collector (unix:PATH, tcp://HOST:PORT, tls://HOST:PORT; see listen). Or the format of outputs whose suffix names none (${OUTPUT_FORMATS.join(', ')}). May be given several times`,
      gather,
    )
    .option('--token-file <file>', "the collector's token (default: $MMIOBRIDGE_TOKEN)")
    .option('--tls-ca <file>', "certificates to trust: the collector's own, or its authority's")
    .option('--insecure-plaintext', 'take tcp:// to another machine, unencrypted')
    .addOption(textExtraOption())
    .option('--spool <dir>', 'a tmpfs folder where QEMU may write (default: /dev/shm)')
    .option(
      '--spool-limit <size>',
      'how much of it to use (default: 1G, or 3/4 of what is free)',
      parseSize,
    )
    .addOption(
      new Option('--overflow <what>', 'at the limit: pause the guest, or drop accesses and say so')
        .choices(['pause', 'drop'])
        .default('pause' as const),
    )
    .option(
      '--live [port]',
      'show the recording in a browser while it runs; needs a .mmiocap output (default: any free port)',
      parsePort,
    )
    .option('--keep-page', 'with --live: leave the page open afterwards, until Ctrl-C')
    .option('--for <seconds>', 'end the recording by itself after this time', parseSeconds)
    .option('--busiest <n>', 'how many registers the summary lists', parseCount, 10)
    .addHelpText('after', HELP);
  command.action(async (argv, options) => {
    const { format, collector } = await sortTargets(options.to ?? []);
    const outputs = options.output ?? (collector === undefined ? [DEFAULT_OUTPUT] : []);
    for (const path of outputs) formatOfPath(path, format);
    const page = await pageOf(options.live, outputs, options.keepPage === true);
    const selection = options.device ?? [];
    if (options.qmp !== undefined && argv.length > 0) {
      throw new MmioError('usage', 'either attach with --qmp, or start a QEMU, not both', {
        evidence: `--qmp ${options.qmp} and -- ${argv.join(' ')}`,
        hint: 'leave out --qmp or what follows --',
      });
    }
    if (options.dryRun === true && options.qmp !== undefined) {
      throw new MmioError('usage', '--dry-run shows the command line of a QEMU that is started', {
        evidence: `--qmp ${options.qmp} attaches to one that runs`,
        hint: 'leave out --dry-run: attaching puts everything back at the end',
      });
    }
    const { recordAttach } = await import('../../recording/begin/attach.ts');
    const { planOnly, recordLaunch } = await import('../../recording/begin/launch.ts');
    const { irq: interrupts } = options;
    const record = {
      outputs,
      ...(collector !== undefined && {
        remote: await remoteTarget(collector, options),
        openRemote: (await import('../../bridge/sender.ts')).openSender,
      }),
      format,
      textExtra: options.textExtra,
      selection,
      overflow: options.overflow,
      // The plugin always tells them.
      pc: options.pc === true && options.source !== 'plugin',
      source: options.source,
      spoolLimitBytes: options.spoolLimit,
      spoolDir: options.spool,
      interrupts,
      notice: say,
      onUserLog: (bytes: Uint8Array) => void process.stderr.write(bytes),
    };
    if (options.dryRun === true) {
      const { formatDryRun } = await import('../../machine/dry-run.ts');
      answer(formatDryRun(await planOnly(argv, record)));
      return;
    }
    const { qmp } = options;
    const begin = () =>
      qmp === undefined ? recordLaunch(argv, record) : recordAttach(qmp, record);
    const { runRecording } = await import('../run/recording.ts');
    process.exitCode = await runRecording(begin, {
      begun: (id) => `recording ${id} (mark: mmiobridge mark TEXT)`,
      busiest: options.busiest,
      seconds: options.for,
      page,
    });
  });
  return command as unknown as AnyCommand;
}

async function pageOf(live: number | true | undefined, outputs: readonly string[], stays: boolean) {
  if (live === undefined) return undefined;
  const { capturePathOf } = await import('../live-page.ts');
  return { path: capturePathOf(outputs), port: live === true ? 0 : live, stays };
}
