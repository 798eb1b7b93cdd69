import { Argument, Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { COMPLETIONS, SHELLS } from '../completion.ts';
import { answer } from '../print.ts';

export function completionCommand(program: AnyCommand): AnyCommand {
  const command = new Command('completion')
    .summary('print the completion script for a shell')
    .addArgument(new Argument('<shell>', 'bash, zsh or fish').choices(SHELLS))
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  source <(mmiobridge completion bash)\n' +
        '  mmiobridge completion zsh > "${fpath[1]}/_mmiobridge"\n' +
        '  mmiobridge completion fish > ~/.config/fish/completions/mmiobridge.fish',
    );
  command.action((shell) => answer(COMPLETIONS[shell](program)));
  return command as unknown as AnyCommand;
}
