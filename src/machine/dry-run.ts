import type { LaunchPlan } from './argv.ts';
import { scanArgv } from './argv-scan.ts';

/**
 * The final command line, to be pasted into a POSIX shell, one option a line; then each addition
 * and why, and the notes, as comments. Ends with a newline.
 */
export function formatDryRun(plan: LaunchPlan): string {
  const lines = groupByOption(plan.argv).map((words) => words.map(shellQuote).join(' '));
  const comments = [
    ...plan.changes.map(({ added, why }) => `${added.map(shellQuote).join(' ')}: ${why}`),
    ...plan.notes,
  ];
  return `${lines.join(' \\\n  ')}\n${comments.map((text) => `# ${oneLine(text)}\n`).join('')}`;
}

/** A word as any POSIX shell reads it back. */
export function shellQuote(word: string): string {
  // `=` is left out of the first place, `~` and `#` of all: there the shell reads them its own way.
  if (/^[\w@%+:,./-][\w@%+:,./=-]*$/.test(word)) return word;
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

function groupByOption(argv: readonly string[]): string[][] {
  const { command, options } = scanArgv(argv);
  let at = command.length;
  const groups = [[...command]];
  for (const { name, value } of options) {
    const count = name !== '' && value !== undefined ? 2 : 1;
    groups.push(argv.slice(at, at + count));
    at += count;
  }
  return groups;
}

/** A line break in a path must not end the comment. */
function oneLine(text: string): string {
  return text.replaceAll(
    /\p{Cc}/gu,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
