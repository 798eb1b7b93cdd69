/** `npm run campaign -- [--rounds N] [--mutants N] [--seed N] [--only INCIDENT] [--over WAY]` */
import { parseArgs } from 'node:util';
import { INCIDENTS, WAYS } from './incidents.ts';
import { runMutants, type MutantKind } from './mutants.ts';
import { Random } from './random.ts';
import { runRound } from './rounds.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    mutants: { type: 'string', default: '1000' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    only: { type: 'string' },
    over: { type: 'string' },
  },
});
const seed = Number(values.seed);
const incidents = INCIDENTS.filter(({ name }) => (values.only ?? name) === name);
const ways = WAYS.filter(
  (way) => (values.over ?? way) === way && incidents.some((it) => it.ways.includes(way)),
);
if (ways.length === 0) throw new Error(`no such incident over ${values.over ?? WAYS.join(', ')}`);
let faults = 0;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

print(`seed ${seed}; over ${ways.join(', ')}; ${incidents.map(({ name }) => name).join(', ')}`);
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

const totals = new Map(
  ways.map((way) => [way, { rounds: 0, accesses: 0, complete: 0, faults: 0 }]),
);
for (let n = 0; n < Number(values.rounds); n++) {
  const way = ways[n % ways.length]!;
  const round = await runRound(way, new Random(seed + n), values.only);
  const total = totals.get(way)!;
  total.rounds++;
  total.accesses += round.accesses;
  total.complete += Number(round.complete);
  total.faults += Number(round.faults.length > 0);
  if (round.faults.length > 0) {
    print(`--rounds 1 --seed ${seed + n} --over ${round.what}`);
    for (const fault of round.faults) print(`  ${fault.replaceAll('\n', '\n  ')}`);
  }
}
for (const [way, total] of totals) {
  const { rounds, accesses, complete } = total;
  print(
    `${way}: ${rounds} rounds, ${accesses.toLocaleString('en')} accesses, ${complete} complete, ${rounds - complete} said to be incomplete, ${total.faults} wrong`,
  );
  faults += total.faults;
}
process.exitCode = faults === 0 ? 0 : 1;
