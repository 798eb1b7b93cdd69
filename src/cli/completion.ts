/** Completion scripts for shells, made from the commands themselves, so that they cannot be stale. */
import type { Command, Option } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** Prints the ids of running recordings, one a line, without starting Node. */
const SESSIONS = 'ls -1 "${MMIOBRIDGE_RUN:-/dev/shm/mmiobridge-$(id -u)}" 2>/dev/null';

export const COMPLETIONS: Readonly<Record<Shell, (program: Command) => string>> = {
  bash,
  zsh,
  fish,
};

function flagsOf(command: Command): string[] {
  return command.options.flatMap(({ short, long }) => [short, long]).filter((f) => f !== undefined);
}

/** What may follow an option, as far as a shell can tell. */
function valueKind(option: Option): 'choices' | 'session' | 'folder' | 'file' | 'other' {
  if (option.argChoices !== undefined) return 'choices';
  if (option.long === '--session') return 'session';
  if (option.long === '--spool') return 'folder';
  return ['--output', '--qmp'].includes(option.long ?? '') ? 'file' : 'other';
}

function takesSession(command: Command): boolean {
  return command.registeredArguments[0]?.name() === 'session';
}

function bash(program: Command): string {
  const names = program.commands.map((command) => command.name());
  const cases = program.commands.map((command) => {
    const values = command.options
      .filter((option) => option.required)
      .map((option) => {
        const flags = [option.short, option.long].filter(Boolean).join('|');
        const kind = valueKind(option);
        const reply =
          kind === 'choices'
            ? `COMPREPLY=($(compgen -W '${option.argChoices?.join(' ') ?? ''}' -- "$cur"))`
            : kind === 'session'
              ? `COMPREPLY=($(compgen -W "$(${SESSIONS})" -- "$cur"))`
              : kind === 'folder'
                ? 'COMPREPLY=($(compgen -d -- "$cur"))'
                : kind === 'file'
                  ? 'COMPREPLY=($(compgen -f -- "$cur"))'
                  : 'COMPREPLY=()';
        return `        ${flags}) ${reply}; return ;;`;
      });
    const choices = command.registeredArguments[0]?.argChoices;
    const words = choices
      ? `COMPREPLY=($(compgen -W '${choices.join(' ')}' -- "$cur"))`
      : takesSession(command)
        ? `COMPREPLY=($(compgen -W "$(${SESSIONS})" -- "$cur"))`
        : 'COMPREPLY=($(compgen -f -- "$cur"))';
    return [
      `    ${command.name()})`,
      ...(values.length > 0 ? ['      case "$prev" in', ...values, '      esac'] : []),
      `      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '${[...flagsOf(command), '--help'].join(' ')}' -- "$cur"))`,
      `      else ${words}; fi ;;`,
    ].join('\n');
  });
  return `# bash completion for mmiobridge
_mmiobridge() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '${[...names, 'help', ...flagsOf(program), '--help'].join(' ')}' -- "$cur"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join('\n')}
  esac
}
complete -o filenames -F _mmiobridge mmiobridge
`;
}

const zshText = (text: string) => text.replaceAll(/[[\]:'\\]/g, ' ');

function zsh(program: Command): string {
  const list = program.commands.map(
    (command) => `    '${command.name()}:${zshText(command.summary())}'`,
  );
  const cases = program.commands.map((command) => {
    const options = command.options.map((option) => {
      const flags =
        option.short === undefined ? (option.long ?? '') : `{${option.short},${option.long ?? ''}}`;
      const kind = valueKind(option);
      const value = !option.required
        ? ''
        : kind === 'choices'
          ? `:value:(${option.argChoices?.join(' ') ?? ''})`
          : kind === 'session'
            ? `:session:($(${SESSIONS}))`
            : kind === 'folder'
              ? ':folder:_files -/'
              : kind === 'file'
                ? ':file:_files'
                : ':value: ';
      const text = `[${zshText(option.description)}]${value}'`;
      return option.short === undefined ? `'*${flags}${text}` : `'*'${flags}'${text}`;
    });
    const choices = command.registeredArguments[0]?.argChoices;
    const rest = choices
      ? `'*:shell:(${choices.join(' ')})'`
      : takesSession(command)
        ? `'*:session:($(${SESSIONS}))'`
        : "'*:file:_files'";
    return `    ${command.name()}) _arguments ${[...options, rest].join(' ')} ;;`;
  });
  return `#compdef mmiobridge
_mmiobridge() {
  local -a commands=(
${list.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local name=$words[2]
  shift words
  (( CURRENT-- ))
  case $name in
${cases.join('\n')}
  esac
}
compdef _mmiobridge mmiobridge
`;
}

const fishText = (text: string) => text.replaceAll('\\', '\\\\').replaceAll("'", "\\'");

function fish(program: Command): string {
  const lines = ['# fish completion for mmiobridge', 'complete -c mmiobridge -f'];
  for (const command of program.commands) {
    const name = command.name();
    lines.push(
      `complete -c mmiobridge -n __fish_use_subcommand -a ${name} -d '${fishText(command.summary())}'`,
    );
    const when = `-n '__fish_seen_subcommand_from ${name}'`;
    for (const option of command.options) {
      const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
      const kind = valueKind(option);
      const value = !option.required
        ? ''
        : kind === 'choices'
          ? ` -x -a '${option.argChoices?.join(' ') ?? ''}'`
          : kind === 'session'
            ? ` -x -a '(ls -1 /dev/shm/mmiobridge-(id -u) 2>/dev/null)'`
            : kind === 'file' || kind === 'folder'
              ? ' -r -F'
              : ' -x';
      lines.push(
        `complete -c mmiobridge ${when}${short} -l ${option.long?.slice(2) ?? ''}${value} -d '${fishText(option.description)}'`,
      );
    }
    const choices = command.registeredArguments[0]?.argChoices;
    if (choices) lines.push(`complete -c mmiobridge ${when} -a '${choices.join(' ')}'`);
    else lines.push(`complete -c mmiobridge ${when} -F`);
  }
  return `${lines.join('\n')}\n`;
}
