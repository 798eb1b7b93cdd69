/** `npm run campaign -- [--rounds N] [--mutants N] [--seed N] [--only INCIDENT]` */
import { parseArgs } from 'node:util';
import { runMutants, type MutantKind } from './mutants.ts';
import { Random } from './random.ts';
import { INCIDENT_NAMES, runRound } from './rounds.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    mutants: { type: 'string', default: '1000' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    only: { type: 'string' },
  },
});
const seed = Number(values.seed);
let faults = 0;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

print(`seed ${seed}; incidents: ${values.only ?? INCIDENT_NAMES.join(', ')}`);
for (const kind of ['capture', 'log', 'text'] satisfies MutantKind[]) {
  const count = Number(values.mutants);
  const result = await runMutants(kind, count, new Random(seed));
  const { refused, incomplete, same } = result;
  print(
    `${count} damaged files (${kind}): ${refused} refused, ${incomplete} said to be incomplete, ${same} read as they were, ${result.faults.length} wrong`,
  );
  for (const fault of result.faults) print(`  ${fault}`);
  faults += result.faults.length;
}

let [accesses, complete] = [0, 0];
const rounds = Number(values.rounds);
for (let n = 0; n < rounds; n++) {
  const round = await runRound(new Random(seed + n), values.only);
  accesses += 2 * round.pairs;
  if (round.complete) complete++;
  faults += round.faults.length;
  if (round.faults.length > 0) {
    print(`round ${n} (seed ${seed + n}): ${round.what}`);
    for (const fault of round.faults) print(`  ${fault.replaceAll('\n', '\n  ')}`);
  }
}
print(
  `${rounds} rounds: ${accesses.toLocaleString('en')} accesses, ${complete} complete, ${rounds - complete} said to be incomplete, ${faults} faults in all`,
);
process.exitCode = faults === 0 ? 0 : 1;
