/** Completion scripts for shells, made from the commands themselves, so that they cannot be stale. */
import type { Argument, Command, Option } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

export const COMPLETIONS: Readonly<Record<Shell, (program: Command) => string>> = {
  bash,
  zsh,
  fish,
};

/** A word of these, and files behind it: a command that has commands of its own. */
interface Commands {
  readonly commands: readonly string[];
}

/** What a shell can offer for an argument, or for the value of an option. */
type Offer =
  | readonly string[]
  | Commands
  | 'sessions'
  | 'PCI devices'
  | 'folders'
  | 'files'
  | 'command line'
  | 'nothing';

const WITH_FILES = [
  '--output',
  '--log',
  '--qmp',
  '--qemu',
  '--token-file',
  '--tls-ca',
  '--tls-cert',
  '--tls-key',
];

function offerForOption({ argChoices, long }: Option): Offer {
  if (argChoices !== undefined) return argChoices;
  if (long === '--session') return 'sessions';
  if (long === '--spool' || long === '--state') return 'folders';
  return WITH_FILES.includes(long ?? '') ? 'files' : 'nothing';
}

function offerForArgument(argument: Argument | undefined): Offer {
  if (argument?.argChoices !== undefined) return argument.argChoices;
  switch (argument?.name()) {
    case 'session':
      return 'sessions';
    case 'address':
      return 'PCI devices';
    case 'input':
      return 'files';
    case 'qemu':
      return 'command line';
    default:
      return 'nothing';
  }
}

function argumentOf(command: Command): Offer {
  const commands = command.commands.map((one) => one.name());
  if (commands.length > 0) return { commands };
  return offerForArgument(command.registeredArguments[0]);
}

/** Its own, or those of its commands, each once. */
function optionsOf(command: Command): readonly Option[] {
  const all = [command, ...command.commands].flatMap(({ options }) => options);
  return [...new Map(all.map((option) => [option.long, option])).values()];
}

function flagsOf(command: Command): string[] {
  const flags = optionsOf(command).flatMap(({ short, long }) => [short, long]);
  return [...flags.filter((flag) => flag !== undefined), '--help'];
}

/** In bash each offer is a command that fills COMPREPLY. */
function bashOffer(offer: Offer): string {
  switch (offer) {
    case 'sessions':
      return '_mmiobridge_reply -W "$(ls "${MMIOBRIDGE_RUN:-/dev/shm/mmiobridge-$UID}" 2>/dev/null)"';
    case 'PCI devices':
      return '_mmiobridge_pci';
    case 'folders':
      return '_mmiobridge_files -d';
    case 'files':
      return '_mmiobridge_files -f';
    case 'command line':
    case 'nothing':
      return ':';
    default:
      if ('commands' in offer) {
        const { commands } = offer;
        return `case $prev in ${commands.join('|')}|*.y*ml) _mmiobridge_files -f ;; *) _mmiobridge_reply -W '${commands.join(' ')}' ;; esac`;
      }
      return `_mmiobridge_reply -W '${offer.join(' ')}'`;
  }
}

function bash(program: Command): string {
  const cases = program.commands.map((command) => {
    const values = optionsOf(command)
      .filter((option) => option.required)
      .map((option) => {
        const flags = [option.short, option.long].filter(Boolean).join('|');
        return `        ${flags}) ${bashOffer(offerForOption(option))}; return ;;`;
      });
    return [
      `    ${command.name()})`,
      ...(values.length > 0 ? ['      case $prev in', ...values, '      esac'] : []),
      `      if [[ $cur == -* ]]; then _mmiobridge_reply -W '${flagsOf(command).join(' ')}'`,
      `      else ${bashOffer(argumentOf(command))}; fi ;;`,
    ].join('\n');
  });
  const words = [...program.commands.map((command) => command.name()), 'help'];
  return `# bash completion for mmiobridge
_mmiobridge_reply() { mapfile -t COMPREPLY < <(compgen "$@" -- "$cur"); }
_mmiobridge_files() {
  compopt -o filenames 2>/dev/null
  _mmiobridge_reply "$@"
}
# A colon ends a word, so an address comes in pieces, and only the last piece is ours to replace.
_mmiobridge_pci() {
  local line=\${COMP_LINE:0:COMP_POINT} at
  [[ $COMP_WORDBREAKS != *:* ]] || cur=\${line##*[[:space:]]}
  _mmiobridge_reply -W "$(ls /sys/bus/pci/devices 2>/dev/null)"
  [[ $COMP_WORDBREAKS != *:* ]] || for at in "\${!COMPREPLY[@]}"; do
    COMPREPLY[at]=\${COMPREPLY[at]#"\${cur%"\${cur##*:}"}"}
  done
}
_mmiobridge() {
  COMPREPLY=()
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} name= at
  # --option=value comes as three words.
  [[ $cur != = ]] || cur=
  [[ $prev != = ]] || prev=\${COMP_WORDS[COMP_CWORD-2]}
  for (( at = 1; at < COMP_CWORD; at++ )); do
    if [[ $name == record && \${COMP_WORDS[at]} == -- ]]; then
      if (( at == COMP_CWORD - 1 )); then _mmiobridge_reply -c; else _mmiobridge_files -f; fi
      return
    fi
    [[ -n $name || \${COMP_WORDS[at]} == -* ]] || name=\${COMP_WORDS[at]}
  done
  case $name in
    '') _mmiobridge_reply -W '${[...words, ...flagsOf(program)].join(' ')}' ;;
    help) _mmiobridge_reply -W '${words.join(' ')}' ;;
${cases.join('\n')}
  esac
}
complete -F _mmiobridge mmiobridge
`;
}

/** What _arguments takes for syntax, and what ends the quotes, becomes a space. */
const zshText = (text: string) => text.replaceAll(/[[\]:'\\]/g, ' ');

/** In zsh each offer is a message and an action of _arguments. */
function zshOffer(offer: Offer): string {
  switch (offer) {
    case 'sessions':
      return ':session:_mmiobridge_sessions';
    case 'PCI devices':
      return ':address:_mmiobridge_pci';
    case 'folders':
      return ':folder:_files -/';
    case 'files':
      return ':file:_files';
    case 'command line':
    case 'nothing':
      return ':value: ';
    default:
      if ('commands' in offer) return `:command:(${offer.commands.join(' ')})' '*:file:_files`;
      return `:value:(${offer.join(' ')})`;
  }
}

function zshOption(option: Option): string {
  const { short, long = '' } = option;
  const value = option.required ? zshOffer(offerForOption(option)) : '';
  const text = `[${zshText(option.description)}]${value}'`;
  return short === undefined ? `'*${long}${text}` : `'*'{${short},${long}}'${text}`;
}

function zsh(program: Command): string {
  const list = program.commands.map(
    (command) => `    '${command.name()}:${zshText(command.summary())}'`,
  );
  const cases = program.commands.map((command) => {
    const offer = argumentOf(command);
    const rest =
      offer === 'command line' || offer === 'nothing'
        ? []
        : [`'${typeof offer === 'object' && 'commands' in offer ? '1' : '*'}${zshOffer(offer)}'`];
    const words = [...optionsOf(command).map(zshOption), `'--help[show help]'`, ...rest];
    return `    ${command.name()}) _arguments ${words.join(' ')} ;;`;
  });
  return `#compdef mmiobridge
_mmiobridge_sessions() {
  local -a sessions=(\${MMIOBRIDGE_RUN:-/dev/shm/mmiobridge-$UID}/*(N/:t))
  compadd -a sessions
}
_mmiobridge_pci() {
  local -a addresses=(/sys/bus/pci/devices/*(N:t))
  compadd -a addresses
}
_mmiobridge() {
  local -a commands=(
${list.join('\n')}
  )
  # Options of mmiobridge itself may come before the command.
  while (( CURRENT > 2 )) && [[ $words[2] == -* ]]; do
    shift words
    (( CURRENT-- ))
  done
  if (( CURRENT == 2 )); then
    if [[ $words[2] == -* ]]; then compadd -- ${flagsOf(program).join(' ')}
    else _describe command commands; fi
    return
  fi
  local name=$words[2]
  shift words
  (( CURRENT-- ))
  # Behind -- begins QEMU's command line, which has a completion of its own.
  local -i at=$words[(ie)--]
  if [[ $name == record ]] && (( at < CURRENT )); then
    shift $at words
    (( CURRENT -= at ))
    _normal
    return
  fi
  case $name in
${cases.join('\n')}
  esac
}
# A file in $fpath is run as the function itself; a script that is sourced is not.
if [[ $funcstack[1] == _mmiobridge ]]; then _mmiobridge "$@"
else compdef _mmiobridge mmiobridge; fi
`;
}

const fishText = (text: string) => text.replaceAll('\\', '\\\\').replaceAll("'", "\\'");

/** In fish each offer is options of complete; files are on unless -f or -x switches them off. */
function fishOffer(offer: Offer): string {
  switch (offer) {
    case 'sessions':
      return " -x -a '(__mmiobridge_sessions)'";
    case 'PCI devices':
      return " -x -a '(ls /sys/bus/pci/devices 2>/dev/null)'";
    case 'folders':
      return " -x -a '(__fish_complete_directories)'";
    case 'files':
      return ' -r -F';
    case 'command line':
      return ' -F';
    case 'nothing':
      return ' -x';
    default:
      if ('commands' in offer) return ` -F -a '${offer.commands.join(' ')}'`;
      return ` -x -a '${offer.join(' ')}'`;
  }
}

function fishOption(when: string, option: Option): string {
  const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
  const value = option.required ? fishOffer(offerForOption(option)) : '';
  return `complete -c mmiobridge ${when}${short} -l ${option.long?.slice(2) ?? ''}${value} -d '${fishText(option.description)}'`;
}

function fish(program: Command): string {
  const lines = [
    '# fish completion for mmiobridge',
    'function __mmiobridge_sessions',
    '    set -l dir /dev/shm/mmiobridge-(id -u)',
    '    set -q MMIOBRIDGE_RUN; and set dir $MMIOBRIDGE_RUN',
    '    ls $dir 2>/dev/null',
    'end',
    'complete -c mmiobridge -f',
    "complete -c mmiobridge -l help -d 'show help'",
    ...program.options.map((option) => fishOption('-n __fish_use_subcommand', option)),
  ];
  for (const command of program.commands) {
    const name = command.name();
    const when = `-n '__fish_seen_subcommand_from ${name}'`;
    const offer = argumentOf(command);
    lines.push(
      `complete -c mmiobridge -n __fish_use_subcommand -a ${name} -d '${fishText(command.summary())}'`,
      ...optionsOf(command).map((option) => fishOption(when, option)),
      ...(offer === 'nothing' ? [] : [`complete -c mmiobridge ${when}${fishArgument(offer)}`]),
    );
  }
  return `${lines.join('\n')}\n`;
}

/** Without an option before it, -r and -x would have nothing to belong to. */
function fishArgument(offer: Offer): string {
  return fishOffer(offer).replace(/ -[xr](?= |$)/, '');
}
