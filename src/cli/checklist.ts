/** Checks with what they came to, readable at a glance. */
import { counted } from '../base/format.ts';
import type { CheckGroup, CheckResult, Status } from '../doctor/check.ts';

const WORDS: Readonly<Record<Status, string>> = {
  ok: 'OK',
  warning: 'warning',
  failure: 'FAILURE',
};
/** SGR parameters (ECMA-48): green, yellow, bold red. */
const COLOURS: Readonly<Record<Status, string>> = { ok: '32', warning: '33', failure: '1;31' };
const WORD_WIDTH = 9;

/** @param colours whether a terminal reads it */
export function formatChecklist(groups: readonly CheckGroup[], colours: boolean): string {
  const results = groups.flatMap((group) => group.results);
  const width = Math.max(...results.map(({ title }) => title.length)) + 2;
  const paint = (status: Status, text: string): string =>
    colours ? `\x1b[${COLOURS[status]}m${text}\x1b[0m` : text;
  const lines = groups.flatMap(({ title, results: own }) => [
    title,
    ...own.flatMap((result) => formatResult(result, width, paint)),
    '',
  ]);
  return [...lines, formatEnd(results, paint)].join('\n');
}

function formatResult(
  { title, status, evidence, remedy }: CheckResult,
  width: number,
  paint: (status: Status, text: string) => string,
): string[] {
  const word = paint(status, WORDS[status].padEnd(WORD_WIDTH));
  const indent = ' '.repeat(2 + WORD_WIDTH);
  return [
    `  ${word}${title.padEnd(width)}${evidence.replaceAll('\n', `\n${indent}`)}`,
    ...(remedy === '' ? [] : remedy.split('\n')).map((line) => `${indent}→ ${line}`),
  ];
}

function formatEnd(
  results: readonly CheckResult[],
  paint: (status: Status, text: string) => string,
): string {
  const failures = results.filter(({ status }) => status === 'failure').length;
  const warnings = results.filter(({ status }) => status === 'warning').length;
  const and = warnings === 0 ? '' : `, ${counted(warnings, 'warning')}`;
  if (failures > 0) {
    return `${paint('failure', counted(failures, 'failure'))}${and}: a recording would not begin, or not be complete`;
  }
  if (warnings > 0) {
    return `${paint('warning', counted(warnings, 'warning'))}: a recording is possible; what it would lack is said above`;
  }
  return `${paint('ok', 'all OK')}: a recording can be complete`;
}
