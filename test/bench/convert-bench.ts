import { execFileSync } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { median, MMIOBRIDGE, run } from './run.ts';
import { printTable } from './table.ts';
import { writeVfioLog } from './vfio-log.ts';

const PERL = fileURLToPath(new URL('convert.pl', import.meta.url));
const TUNED_PERL = fileURLToPath(new URL('convert-tuned.pl', import.meta.url));
const C_SOURCE = fileURLToPath(new URL('convert.c', import.meta.url));

/** A vfio log to mmiotrace text: ours, what one writes by hand in perl, that tuned, a page of C. */
export async function benchConvert(dir: string, quick: boolean): Promise<void> {
  const lines = quick ? 1_000_000 : 3_000_000;
  const log = join(dir, 'vfio.log');
  writeVfioLog(log, lines);
  const compiled = compile(join(dir, 'convert-c'));
  const oursText = join(dir, 'ours.mmiotrace');
  const ours = () => run([...MMIOBRIDGE, 'convert', log, '-o', oursText]);
  const perl = (script: string, text: string) =>
    run(['perl', '-n', script, log], { stdout: join(dir, text) });
  const c = () => run([compiled ?? ''], { stdin: log, stdout: join(dir, 'c.txt') });

  const seconds = {
    ours: [] as number[],
    perl: [] as number[],
    tuned: [] as number[],
    c: [] as number[],
  };
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    seconds.ours.push((await ours()).seconds);
    if (compiled !== undefined) seconds.c.push((await c()).seconds);
    if (round < 2) {
      seconds.perl.push((await perl(PERL, 'perl.txt')).seconds);
      seconds.tuned.push((await perl(TUNED_PERL, 'tuned.txt')).seconds);
    }
  }
  await requireSame(oursText, join(dir, 'perl.txt'));
  await requireSame(oursText, join(dir, 'tuned.txt'));
  if (compiled !== undefined) await requireSame(oursText, join(dir, 'c.txt'));

  const startup: number[] = [];
  for (let i = 0; i < 5; i++) startup.push((await run([...MMIOBRIDGE, '--version'])).seconds);

  const base = median(seconds.perl);
  const row = (name: string, values: readonly number[]) => [
    name,
    `${median(values).toFixed(2)} s`,
    `${(lines / median(values) / 1e6).toFixed(1)} M lines/s`,
    `${(base / median(values)).toFixed(1)} times perl`,
  ];
  printTable(
    `convert: ${lines / 1e6} million vfio lines to mmiotrace text, whole process, median; the R and W lines of all are equal`,
    [
      row('mmiobridge convert', seconds.ours),
      row('perl, as one writes it', seconds.perl),
      row('perl, tuned', seconds.tuned),
      compiled === undefined ? ['C', 'no gcc'] : row('C, one page', seconds.c),
      ['of ours, starting the program', `${median(startup).toFixed(2)} s`],
    ],
  );
}

function compile(program: string): string | undefined {
  try {
    execFileSync('gcc', ['-O2', '-o', program, C_SOURCE], { stdio: 'ignore' });
    return program;
  } catch {
    return undefined;
  }
}

/** Throws where the R and W lines of a log are not the lines of the other file. */
async function requireSame(log: string, wanted: string): Promise<void> {
  const other = createInterface(createReadStream(wanted))[Symbol.asyncIterator]();
  for await (const line of createInterface(createReadStream(log))) {
    if (!/^[RW] /.test(line)) continue;
    const { value } = (await other.next()) as { value: string | undefined };
    if (line !== value) throw new Error(`${wanted} has\n${value ?? 'no more'}\nfor\n${line}`);
  }
  if ((await other.next()).done !== true) throw new Error(`${wanted} has more lines`);
}
