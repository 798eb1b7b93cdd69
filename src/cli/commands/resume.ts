import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { say } from '../print.ts';

export function resumeCommand(): AnyCommand {
  const command = new Command('resume')
    .summary('resume a recording whose recorder was killed')
    .description(
      'Resumes a recording whose recorder was killed, at the byte where it stopped:\n' +
        'QEMU went on logging into the spool meanwhile.',
    )
    .argument('<session>', 'as `mmiobridge status` lists it, or its beginning')
    .addHelpText(
      'after',
      '\nExample:\n  mmiobridge resume 20261123T101500-4242\n\nExit status: as for record.',
    );
  command.action(async (session) => {
    const { resumeRecording } = await import('../../recording/begin/resume.ts');
    const { runRecording } = await import('../run/recording.ts');
    const { openSender } = await import('../../bridge/sender.ts');
    const options = {
      notice: say,
      openRemote: openSender,
      onUserLog: (bytes: Uint8Array) => void process.stderr.write(bytes),
    };
    const { findSessions, idsOf, wholeId } =
      await import('../../recording/session/session-folder.ts');
    const whole = wholeId(session, idsOf(await findSessions()));
    process.exitCode = await runRecording(
      (signal) => resumeRecording(whole, { ...options, signal }),
      {
        begun: (id) => `resuming ${id}`,
        busiest: 10,
        seconds: undefined,
      },
    );
  });
  return command as unknown as AnyCommand;
}
