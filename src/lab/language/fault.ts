import { MmioError } from '../../base/errors.ts';
import { counted } from '../../base/format.ts';

export interface Place {
  readonly file: string;
  /** From 1 on. */
  readonly line: number;
  readonly column: number;
}

/** Something that is wrong with a scenario. */
export interface Fault {
  readonly place: Place;
  readonly message: string;
  /** What would be right. */
  readonly expected?: string | undefined;
  /** YAML that would be right. */
  readonly example?: string | undefined;
}

/** More are not shown: the first ones make the others. */
const MAX_SHOWN = 20;

/** All of them as one error, `usage`; each begins with `FILE:LINE:COLUMN:`. */
export function faultsError(faults: readonly Fault[]): MmioError {
  const [first] = faults;
  if (faults.length === 1 && first !== undefined) {
    return new MmioError('usage', headOf(first), {
      evidence: first.expected === undefined ? undefined : `expected ${first.expected}`,
      hint: first.example === undefined ? undefined : exampleOf(first.example),
    });
  }
  const inOrder = faults.toSorted(
    ({ place: a }, { place: b }) =>
      a.file.localeCompare(b.file) || a.line - b.line || a.column - b.column,
  );
  const more = faults.length - MAX_SHOWN;
  return new MmioError(
    'usage',
    `${first?.place.file ?? ''} has ${counted(faults.length, 'fault')}`,
    {
      evidence: [
        ...inOrder
          .slice(0, MAX_SHOWN)
          .map((fault) =>
            [
              headOf(fault),
              ...(fault.expected === undefined ? [] : [`  expected ${fault.expected}`]),
              ...(fault.example === undefined ? [] : [indented(fault.example, '    ')]),
            ].join('\n'),
          ),
        ...(more > 0 ? [`and ${more} more`] : []),
      ].join('\n'),
    },
  );
}

function headOf({ place, message }: Fault): string {
  return `${place.file}:${place.line}:${place.column}: ${message}`;
}

function exampleOf(example: string): string {
  return `for example\n${indented(example, '    ')}`;
}

function indented(text: string, by: string): string {
  return text.replaceAll(/^/gm, by);
}
