import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { gatherPciAddress } from '../parse.ts';

const HELP = `
Also after a bind that was cut off. Where it is not known what a device had, the kernel chooses.

Example:
  mmiobridge unbind 0000:01:00.0`;

export function unbindCommand(): AnyCommand {
  const command = new Command('unbind')
    .summary('give PCI devices back to the drivers that they had')
    .argument('<address...>', '0000:01:00.0 or 01:00.0', gatherPciAddress)
    .option('--dry-run', 'print what would be done, and do nothing')
    .addHelpText('after', HELP);
  command.action(async (addresses, options) => {
    const { runUnbind } = await import('../run/bind.ts');
    await runUnbind(addresses, options);
  });
  return command as unknown as AnyCommand;
}
