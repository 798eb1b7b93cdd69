import { Command } from 'commander';
import { VERSION } from '../base/version.ts';
import { bindCommand } from './commands/bind.ts';
import { completionCommand } from './commands/completion.ts';
import { convertCommand } from './commands/convert.ts';
import { doctorCommand } from './commands/doctor.ts';
import { labCommand } from './commands/lab.ts';
import { listenCommand } from './commands/listen.ts';
import { markCommand } from './commands/mark.ts';
import { recordCommand } from './commands/record.ts';
import { resumeCommand } from './commands/resume.ts';
import { statusCommand } from './commands/status.ts';
import { unbindCommand } from './commands/unbind.ts';
import { viewCommand } from './commands/view.ts';

/** All commands, in the order in which help lists them. */
export function buildProgram(): Command {
  const program = new Command('mmiobridge')
    .description(
      "Records what a guest's driver says to its PCI device, from a stock QEMU,\nas mmiotrace-compatible logs.",
    )
    .version(VERSION)
    .option('--debug', 'show where an error comes from')
    .option(
      '--log <file>',
      'append what happens inside, for bug reports (default: $MMIOBRIDGE_LOG)',
    )
    .hook('preAction', async (command) => {
      const path = command.opts<{ readonly log?: string }>().log;
      if (path === undefined && process.env['MMIOBRIDGE_LOG'] === undefined) return;
      const { openLog } = await import('./log-file.ts');
      openLog(path);
    })
    .addHelpText(
      'after',
      '\nExample:\n  mmiobridge record -o trace.mmiotrace -- qemu-system-x86_64 -device vfio-pci,host=0000:01:00.0 …',
    );
  const commands: Command[] = [
    recordCommand(),
    resumeCommand(),
    convertCommand(),
    viewCommand(),
    markCommand(),
    statusCommand(),
    listenCommand(),
    labCommand(),
    doctorCommand(),
    bindCommand(),
    unbindCommand(),
    completionCommand(program),
  ];
  for (const command of commands) program.addCommand(command);
  exitWithErrors(program);
  return program;
}

/** Usage errors come back as exceptions, so that one place decides the exit status. */
function exitWithErrors(command: Command): void {
  command.exitOverride();
  command.configureHelp({ showGlobalOptions: false });
  command.showHelpAfterError('(--help shows the options and an example)');
  for (const child of command.commands) exitWithErrors(child);
}
