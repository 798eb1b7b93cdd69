#!/usr/bin/env node
import { CommanderError } from 'commander';
import { buildProgram } from './program.ts';
import { messageOf, systemCodeOf } from '../base/errors.ts';
import { requireOurWords } from './our-words.ts';
import { EXIT, say, sayError } from './print.ts';

// Who reads an answer may have read enough; an output that is a recording has a listener of its own.
process.stdout.on('error', (error) => {
  if (process.stdout.listenerCount('error') > 1) return;
  if (systemCodeOf(error) === 'EPIPE') process.exit();
  say(`mmiobridge: cannot write to standard output: ${messageOf(error)}`);
  process.exit(EXIT.failure);
});

const program = buildProgram();
try {
  requireOurWords(process.argv.slice(2));
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed what is wrong; asking for help is not wrong.
    process.exitCode = error.exitCode === 0 ? EXIT.complete : EXIT.usage;
  } else {
    process.exitCode = sayError(error, program.opts()['debug'] === true);
  }
}
