#!/usr/bin/env node
import { CommanderError } from 'commander';
import { buildProgram } from './program.ts';
import { EXIT, sayError } from './print.ts';

const program = buildProgram();
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed what is wrong; asking for help is not wrong.
    process.exitCode = error.exitCode === 0 ? EXIT.complete : EXIT.usage;
  } else {
    process.exitCode = sayError(error, program.opts()['debug'] === true);
  }
}
