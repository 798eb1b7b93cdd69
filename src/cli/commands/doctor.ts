import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { gather } from '../parse.ts';
import { EXIT, answer } from '../print.ts';

const HELP = `
Examples:
  mmiobridge doctor
  mmiobridge doctor --device 0000:01:00.0
  mmiobridge doctor --qmp /run/vm/qmp.sock --json | jq '.checks[] | select(.status != "ok")'

Exit status: 0 all OK, or warnings alone; 1 a failure; 2 usage.`;

export function doctorCommand(): AnyCommand {
  const command = new Command('doctor')
    .summary('check whether this host and this VM can be traced completely')
    .option(
      '--device <device>',
      'a device of the host by its address; with --qmp also by QEMU id or guest address (default: those bound to vfio-pci, or in the VM). May be given several times',
      gather,
    )
    .option('--qmp <socket>', 'look at the VM whose QEMU listens here (path, or host:port), too')
    .option('--qemu <program>', 'the QEMU to look at (default: the one that runs, or is installed)')
    .option('--json', 'for scripts: an object with all checks')
    .addHelpText('after', HELP);
  command.action(async (options) => {
    const [{ examine }, { thisSystem }, { runDir }, { ALL_EVENTS }, { formatChecklist }] =
      await Promise.all([
        import('../../doctor/examine.ts'),
        import('../../doctor/system.ts'),
        import('../../recording/session/session-folder.ts'),
        import('../../recording/source/trace-events.ts'),
        import('../checklist.ts'),
      ]);
    const groups = await examine(thisSystem(), {
      selection: options.device ?? [],
      qmp: options.qmp,
      qemu: options.qemu,
      runFolder: runDir(),
      traceEvents: ALL_EVENTS,
    });
    const checks = groups.flatMap(({ title, results }) =>
      results.map((result) => ({ group: title, ...result })),
    );
    const failed = checks.some(({ status }) => status === 'failure');
    const warned = checks.some(({ status }) => status === 'warning');
    if (options.json === true) {
      const status = failed ? 'failure' : warned ? 'warning' : 'ok';
      answer(JSON.stringify({ status, checks }, null, 2));
    } else {
      answer(formatChecklist(groups, process.stdout.isTTY && !process.env['NO_COLOR']));
    }
    if (failed) process.exitCode = EXIT.failure;
  });
  return command as unknown as AnyCommand;
}
