import { Command, Option } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { MmioError } from '../../base/errors.ts';
import { formatOfPath } from '../../sinks/index.ts';
import {
  formatOption,
  gather,
  textExtraOption,
  parseConfigPlace,
  parseCount,
  parsePort,
  parseSeconds,
  parseSpoolLimit,
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
    mmiobridge record --send-to tls://workstation:7420 --tls-ca cert.pem --token-file token -- qemu-system-x86_64 …
  Watch the writes go by:
    mmiobridge record --device nic0 -o - -- qemu-system-x86_64 … | grep '^W'

On a terminal: m asks for a mark, q ends the recording (and a VM that it started),
Ctrl-C does the same, twice kills.

Exit status: 0 complete; 1 failure; 2 usage; 3 recorded, but incomplete; 130 interrupted.`;

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
        '--source <source>',
        "where accesses come from: QEMU's log, KVM's tracepoints alone (needs root), or a plugin in a QEMU with TCG that is started",
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
      '--send-to <address>',
      'a collector that writes it elsewhere: unix:PATH, tcp://HOST:PORT or tls://HOST:PORT (see listen)',
    )
    .option('--token-file <file>', "the collector's token (default: $MMIOBRIDGE_TOKEN)")
    .option('--tls-ca <file>', "certificates to trust: the collector's own, or its authority's")
    .option('--insecure-plaintext', 'take tcp:// to another machine, unencrypted')
    .addOption(formatOption())
    .addOption(textExtraOption())
    .option('--spool <dir>', 'a tmpfs folder where QEMU may write (default: /dev/shm)')
    .option(
      '--spool-limit <size>',
      'how much of it to use, 1M at least (default: 1G, or 3/4 of what is free)',
      parseSpoolLimit,
    )
    .option(
      '--mark-register <place>',
      'a register of configuration space whose writes by the guest become marks: config+0x3c, which no driver uses',
      parseConfigPlace,
    )
    .addOption(
      new Option(
        '--overflow <policy>',
        'at the limit: pause the guest, or drop accesses and say so',
      )
        .choices(['pause', 'drop'])
        .default('pause' as const),
    )
    .option(
      '--live [port]',
      'show the recording in a browser while it runs; needs a .mmiocap output (default: any free port)',
      parsePort,
    )
    .option('--keep-page', 'with --live: leave the page open afterwards, until Ctrl-C')
    .option('--duration <seconds>', 'end the recording after this time', parseSeconds)
    .option('--top <n>', 'how many of the busiest registers the summary lists', parseCount, 10)
    .addHelpText('after', HELP);
  command.action(async (argv, options) => {
    const { format, sendTo } = options;
    const outputs = options.output ?? (sendTo === undefined ? [DEFAULT_OUTPUT] : []);
    for (const path of outputs) formatOfPath(path, format);
    requireCollector(options);
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
      ...(sendTo !== undefined && {
        remote: (await import('../../bridge/remote-target.ts')).remoteTarget(sendTo, options),
        openRemote: (await import('../../bridge/sender.ts')).openSender,
      }),
      format,
      textExtra: options.textExtra,
      selection,
      overflow: options.overflow,
      markRegister: options.markRegister,
      pc: options.pc === true,
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
    const begin = (signal: AbortSignal) =>
      qmp === undefined
        ? recordLaunch(argv, { ...record, signal })
        : recordAttach(qmp, { ...record, signal });
    const { runRecording } = await import('../run/recording.ts');
    process.exitCode = await runRecording(begin, {
      begun: (id) => `recording ${id} (mark: mmiobridge mark TEXT)`,
      busiest: options.top,
      seconds: options.duration,
      page,
    });
  });
  return command as unknown as AnyCommand;
}

/** Throws MmioError `usage` for options of a collector where there is none. */
function requireCollector(options: {
  sendTo?: string;
  tokenFile?: string;
  tlsCa?: string;
  insecurePlaintext?: true;
}): void {
  if (options.sendTo !== undefined) return;
  const given = [
    options.tokenFile === undefined ? '' : `--token-file ${options.tokenFile}`,
    options.tlsCa === undefined ? '' : `--tls-ca ${options.tlsCa}`,
    options.insecurePlaintext === undefined ? '' : '--insecure-plaintext',
  ].filter((option) => option !== '');
  if (given.length === 0) return;
  throw new MmioError('usage', 'there is no collector to connect to', {
    evidence: `${given.join(' ')}, and no --send-to`,
    hint: 'add --send-to ADDRESS',
  });
}

async function pageOf(live: number | true | undefined, outputs: readonly string[], stays: boolean) {
  if (live === undefined) return undefined;
  const { capturePathOf } = await import('../live-page.ts');
  return { path: capturePathOf(outputs), port: live === true ? 0 : live, stays };
}
