import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';

export function statusCommand(): AnyCommand {
  const command = new Command('status')
    .summary('list recordings that run or can be resumed, with their counters')
    .option('-s, --session <id>', 'only this recording')
    .option('--json', 'for scripts: an array of objects')
    .addHelpText('after', '\nExample:\n  mmiobridge status --json | jq .[0].status.counters');
  command.action(async (options) => {
    const { runStatus } = await import('../run/status.ts');
    await runStatus(options);
  });
  return command as unknown as AnyCommand;
}
