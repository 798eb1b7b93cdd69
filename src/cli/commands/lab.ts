import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { gather } from '../parse.ts';

const HELP = `
Examples:
  Write a first scenario, look whether it is right, and run it:
    mmiobridge lab new nic
    mmiobridge lab check nic.yaml
    mmiobridge lab run nic.yaml
  With another disk, into another folder:
    mmiobridge lab run nic.yaml --set disk=/images/other.qcow2 --output /data/runs
  After the machine, or the run, was killed:
    mmiobridge lab clean

Exit status: 0 every step passed and the recording is complete; 1 a step failed;
2 the scenario or the command line is wrong; 3 passed, but the recording is incomplete;
130 interrupted. docs/lab.md has every step with an example.`;

export function labCommand(): AnyCommand {
  const command = new Command('lab')
    .summary('run an experiment that a file describes, without a person')
    .description(
      'Runs scenarios: which VM to start, what to do in it, what to mark. A run leaves a folder with the\n' +
        'recording, what the guest showed and said, and manifest.json, which says how it all came about.',
    )
    .addHelpText('after', HELP);
  command
    .command('run')
    .summary('run a scenario')
    .description('Runs a scenario from its first step to its last, and puts back whatever it took.')
    .argument('<file>', 'the scenario, YAML')
    .option('--set <name=value>', 'a variable of the scenario. May be given several times', gather)
    .option('-o, --output <dir>', 'where the folder of the run is made (default: lab-runs)')
    .option('--allow-host-commands', 'take the steps that run programs on this host')
    .action(async (file, options) => {
      const { runLab } = await import('../run/lab.ts');
      process.exitCode = await runLab(file, options);
    });
  command
    .command('check')
    .summary('look whether a scenario is right, without running it')
    .description(
      'Says what is wrong with a scenario, by file, line and column; or lists its steps.',
    )
    .argument('<file>', 'the scenario, YAML')
    .option('--set <name=value>', 'a variable of the scenario. May be given several times', gather)
    .option('--allow-host-commands', 'as for run')
    .action(async (file, options) => {
      const { checkLab } = await import('../run/lab.ts');
      checkLab(file, options);
    });
  command
    .command('new')
    .summary('write a scenario to begin with')
    .description('Writes NAME.yaml with every line explained, and lab.schema.json for editors.')
    .argument('<name>', 'a name, or a path without .yaml')
    .action(async (name) => {
      const { newLab } = await import('../run/lab.ts');
      newLab(name);
    });
  command
    .command('clean')
    .summary('put back what killed runs have left')
    .description(
      'Ends the VMs of runs whose runner was killed, writes their recordings to the end, takes tracing off\n' +
        'VMs that they attached to, and gives devices back.',
    )
    .action(async () => {
      const { cleanLab } = await import('../run/lab.ts');
      process.exitCode = await cleanLab();
    });
  return command as unknown as AnyCommand;
}
