/**
 * Output formats: in comes a stream (model/stream.ts), out go bytes. One line a format, loaded when
 * it is used: a conversion to text need not wait for protobuf.
 */
import { MmioError } from '../base/errors.ts';
import type { Sink } from '../model/stream.ts';
import type { SinkOptions } from './text-extra.ts';
import type { ByteOutput } from './output.ts';

export type OutputFormat = 'mmiotrace' | 'capture' | 'ndjson';

interface FormatEntry {
  readonly format: OutputFormat;
  readonly suffixes: readonly string[];
  readonly open: (output: ByteOutput, options: SinkOptions) => Promise<Sink>;
}

const FORMATS: readonly FormatEntry[] = [
  {
    format: 'mmiotrace',
    suffixes: ['.mmiotrace', '.txt'],
    open: async (output, options) =>
      new (await import('./mmiotrace.ts')).MmiotraceSink(output, options),
  },
  {
    format: 'capture',
    suffixes: ['.mmiocap'],
    open: async (output) => new (await import('./capture.ts')).CaptureSink(output),
  },
  {
    format: 'ndjson',
    suffixes: ['.ndjson'],
    open: async (output) => new (await import('./ndjson.ts')).NdjsonSink(output),
  },
];

export const OUTPUT_FORMATS: readonly OutputFormat[] = FORMATS.map(({ format }) => format);

export async function openSink(
  format: OutputFormat,
  output: ByteOutput,
  options: SinkOptions,
): Promise<Sink> {
  const entry = FORMATS.find((candidate) => candidate.format === format);
  if (entry === undefined) throw new MmioError('usage', `no output format is called ${format}`);
  return entry.open(output, options);
}

/**
 * The format that a path's suffix names; `fallback` for standard output and where there is none.
 * Throws MmioError `usage` for a suffix that is unknown when there is no fallback.
 */
export function formatOfPath(path: string, fallback?: OutputFormat): OutputFormat {
  const plain = path.toLowerCase().replace(/\.gz$/, '');
  const entry = FORMATS.find(({ suffixes }) => suffixes.some((suffix) => plain.endsWith(suffix)));
  if (entry !== undefined) return entry.format;
  if (fallback !== undefined) return fallback;
  if (path === '-') return 'mmiotrace';
  const known = FORMATS.flatMap(({ suffixes }) => suffixes).join(', ');
  throw new MmioError('usage', `the format of ${path} is not known`, {
    evidence: 'its suffix names no format',
    hint: `end it in one of ${known} (.gz may follow), or say --format ${OUTPUT_FORMATS.join('|')}`,
  });
}
