import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { say } from '../print.ts';

export function markCommand(): AnyCommand {
  const command = new Command('mark')
    .summary('put a MARK into a running recording')
    .argument('<text...>', 'what is being done')
    .option('-s, --session <id>', 'which recording, where several run')
    .addHelpText('after', '\nExample:\n  mmiobridge mark about to set 1920x1080');
  command.action(async (words, options) => {
    const { askControl } = await import('../../recording/session/control-socket.ts');
    const { pickSession } = await import('../pick-session.ts');
    const { id, controlSocket } = await pickSession(options.session);
    const text = words.join(' ');
    const result = (await askControl(controlSocket, { request: 'mark', text })) as {
      readonly timeNs: number;
    };
    say(`marked ${id} at ${(result.timeNs / 1e9).toFixed(6)} s: ${text}`);
  });
  return command as unknown as AnyCommand;
}
