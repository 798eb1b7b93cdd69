/** The completion scripts, in the shells themselves. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMPLETIONS, SHELLS, type Shell } from '../../../src/cli/completion.ts';
import { buildProgram } from '../../../src/cli/program.ts';
import { SOON } from '../../support/soon.ts';

const SESSION = '20260101T000000-4242';
/** This machine's, of which there must be one: the shells look into its sysfs. */
const PCI_DEVICES = readdirSync('/sys/bus/pci/devices').toSorted();
const [PCI_DEVICE = 'none'] = PCI_DEVICES;
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-completion-'));
  const program = buildProgram();
  for (const shell of SHELLS) writeFileSync(join(dir, shell), COMPLETIONS[shell](program));
  mkdirSync(join(dir, 'run', SESSION), { recursive: true });
  mkdirSync(join(dir, 'logs', 'inner'), { recursive: true });
  writeFileSync(join(dir, 'logs', 'first try.log'), '');
  // A folder with the name of a command must not turn the command into a path.
  mkdirSync(join(dir, 'record'));
  writeFileSync(join(dir, 'zpty.zsh'), ZSH_TERMINAL);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Runs a shell; what is missing or says anything on standard error fails the test. */
function run(shell: Shell, args: readonly string[]): string {
  const env = { ...process.env, MMIOBRIDGE_RUN: join(dir, 'run'), HOME: dir, TERM: 'dumb' };
  const done = spawnSync(shell, args, { cwd: dir, env, encoding: 'utf8', timeout: SOON.timeout });
  if (done.error) throw new Error(`${shell}: qemu-scripts/setup.sh --tests installs it`);
  expect(done.stderr).toBe('');
  expect(done.status).toBe(0);
  return done.stdout;
}

const linesOf = (text: string) => text.split('\n').filter((line) => line !== '');

/** Candidates for the last of the words. */
const complete = {
  bash: (...words: string[]) => {
    const script =
      'source ./bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mmiobridge; printf "%s\\n" "${COMPREPLY[@]}"';
    return linesOf(run('bash', ['--norc', '-c', script, 'bash', 'mmiobridge', ...words]));
  },
  /** As bash itself gives the line: cut into words also at each colon. */
  bashLine: (line: string) => {
    const words = line.split(/ |(?<=:)|(?=:)/);
    const script =
      'source ./bash; COMP_LINE=$1 COMP_POINT=${#1}; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mmiobridge; printf "%s\\n" "${COMPREPLY[@]}"';
    return linesOf(run('bash', ['--norc', '-c', script, 'bash', line, ...words]));
  },
  fish: (...words: string[]) => {
    const script = 'source ./fish; complete -C "$argv"';
    const line = `mmiobridge ${words.join(' ')}`;
    const found = linesOf(run('fish', ['--no-config', '-c', script, line]));
    return found.map((candidate) => candidate.split('\t', 1)[0]);
  },
};

/** Types $1 and Tab into a zsh on a terminal of its own, and prints what the line is then. */
const ZSH_TERMINAL = String.raw`
zmodload zsh/zpty
zpty z "zsh -f -i"
zpty -w z 'autoload -Uz compinit; compinit -u -D; source ./zsh'
zpty -w z 'tell() { print -r -- "$BUFFER" >told.new; mv told.new told; }; zle -N tell'
# Ready once the editor has the terminal: keys that come before are the terminal's, and some get lost.
zpty -w z "bindkey '^X^D' tell; zle-line-init() { print REA\"\"DY }; zle -N zle-line-init"
zpty -r z out '*READY*'
zpty -n -w z "$1"$'\t\x18\x04'
for (( i = 0; i < 200; i++ )); do
  [[ ! -e told ]] || break
  sleep 0.05
done
cat told && rm told
zpty -d z
`;

describe('the script is taken by its shell', () => {
  it.each([
    ['bash', '-n'],
    ['zsh', '-n'],
    ['fish', '--no-execute'],
  ] as const)('%s %s', (shell, check) => {
    expect(run(shell, [check, join(dir, shell)])).toBe('');
  });
});

describe.each(['bash', 'fish'] as const)('%s offers', (shell) => {
  const offers = complete[shell];

  it('commands', () => {
    expect(offers('rec')).toEqual(['record']);
    expect(offers('')).toEqual(expect.arrayContaining(['resume', 'convert', 'mark', 'status']));
  });

  it('a command behind an option of mmiobridge itself', () => {
    expect(offers('--debug', 'stat')).toEqual(['status']);
  });

  it('options of the command', () => {
    expect(offers('record', '--over')).toEqual(['--overflow']);
    expect(offers('convert', '--over')).toEqual([]);
    expect(offers('convert', '--bar')).toEqual(['--bar-base']);
  });

  it('the choices of an option', () => {
    expect(offers('record', '--overflow', '').toSorted()).toEqual(['drop', 'pause']);
    expect(offers('convert', 'x', '--input-format', 'q')).toEqual(['qemu-log']);
  });

  it('the shells', () => {
    expect(offers('completion', '').toSorted()).toEqual(['bash', 'fish', 'zsh']);
  });

  it('recordings, of the place that MMIOBRIDGE_RUN names', () => {
    expect(offers('resume', '')).toEqual([SESSION]);
    expect(offers('mark', '-s', '2026')).toEqual([SESSION]);
    expect(offers('status', '--session', '')).toEqual([SESSION]);
  });

  it('commands of a command, and the files that these take', () => {
    expect(offers('lab', 'cl')).toEqual(['clean']);
    expect(offers('lab', 'run', 'logs/fir')).toEqual(['logs/first try.log']);
    expect(offers('lab', 'run', '--allow')).toEqual(['--allow-host-commands']);
  });

  it('files with a space in their name as one', () => {
    expect(offers('convert', 'logs/fir')).toEqual(['logs/first try.log']);
    expect(offers('record', '-o', 'logs/fir')).toEqual(['logs/first try.log']);
  });

  it('only folders for --spool', () => {
    expect(offers('record', '--spool', 'logs/').map((path) => path?.replace(/\/$/, ''))).toEqual([
      'logs/inner',
    ]);
  });

  it('nothing for the words of a mark', () => {
    expect(offers('mark', 'lo')).toEqual([]);
  });

  it("no options of ours in QEMU's command line", () => {
    expect(offers('record', '--', 'qemu-system-x86_64', '--over')).toEqual([]);
  });
});

describe('PCI devices', () => {
  it.each(['bind', 'unbind'])('are offered by bash for %s, also behind a colon', (command) => {
    expect(PCI_DEVICES).not.toEqual([]);
    expect(complete.bashLine(`mmiobridge ${command} `)).toEqual(PCI_DEVICES);
    const colon = PCI_DEVICE.lastIndexOf(':') + 1;
    const typed = PCI_DEVICE.slice(0, -1);
    expect(complete.bashLine(`mmiobridge ${command} ${PCI_DEVICE} ${typed}`)).toEqual(
      PCI_DEVICES.filter((each) => each.startsWith(typed)).map((each) => each.slice(colon)),
    );
  });

  it.each(['bind', 'unbind'])('are offered by fish for %s', (command) => {
    expect(complete.fish(command, '').toSorted()).toEqual(PCI_DEVICES);
  });

  it('are offered by zsh', () => {
    // Of a card with one function, all but the last digit says which it is.
    const slots = PCI_DEVICES.map((each) => each.slice(0, -1));
    const typed = slots.find((slot) => slots.indexOf(slot) === slots.lastIndexOf(slot));
    const line = `mmiobridge unbind ${typed ?? 'none'}`;
    expect(run('zsh', ['zpty.zsh', line]).replace(/\n$/, '')).toBe(`${line}0 `);
  });
});

describe('bash', () => {
  it('takes --option=value, which comes as three words', () => {
    expect(complete.bash('record', '--overflow', '=', 'p')).toEqual(['pause']);
    expect(complete.bash('record', '--overflow', '=')).toEqual(['pause', 'drop']);
  });
});

describe('zsh completes', () => {
  it.each([
    ['a command', 'mmiobridge rec', 'mmiobridge record '],
    ['behind --debug', 'mmiobridge --debug stat', 'mmiobridge --debug status '],
    ['an option', 'mmiobridge record --over', 'mmiobridge record --overflow '],
    ['a choice', 'mmiobridge record --overflow pa', 'mmiobridge record --overflow pause '],
    ['a shell', 'mmiobridge completion f', 'mmiobridge completion fish '],
    ['a command of a command', 'mmiobridge lab cl', 'mmiobridge lab clean '],
    ['its file', 'mmiobridge lab run logs/f', 'mmiobridge lab run logs/first\\ try.log '],
    ['a recording', 'mmiobridge resume 20', `mmiobridge resume ${SESSION} `],
    ['a recording for an option', 'mmiobridge mark -s 20', `mmiobridge mark -s ${SESSION} `],
    ['a file', 'mmiobridge convert logs/f', 'mmiobridge convert logs/first\\ try.log '],
    ['a folder for --spool', 'mmiobridge record --spool lo', 'mmiobridge record --spool logs/'],
    [
      "QEMU's files",
      'mmiobridge record -- cat logs/f',
      'mmiobridge record -- cat logs/first\\ try.log ',
    ],
    ['nothing in a mark', 'mmiobridge mark lo', 'mmiobridge mark lo'],
  ])('%s', (_, typed, becomes) => {
    expect(run('zsh', ['zpty.zsh', typed]).replace(/\n$/, '')).toBe(becomes);
  });
});
