/** Any readable format to any writable one. */
import { MmioError } from '../base/errors.ts';
import { fileIdOf } from '../base/same-file.ts';
import { AnalysisPass } from '../analysis/analysis.ts';
import { TotalsAnalysis, type Totals } from '../analysis/totals.ts';
import type { DamageEvent, RecordingEvent } from '../model/events.ts';
import { isBatch } from '../model/stream.ts';
import { OutputSet, type OutputOptions } from '../sinks/output-set.ts';
import { openRecording, type OpenOptions } from './open-recording.ts';

export interface ConvertOptions extends OpenOptions {
  readonly format: OutputOptions['format'];
  readonly textExtra: OutputOptions['textExtra'];
}

export interface Converted {
  readonly totals: Totals;
  /** The first damages, for a person. */
  readonly damages: readonly DamageEvent[];
  /** Frames of a capture that were of kinds not known, by kind; they were left out. */
  readonly unknownFrames: ReadonlyMap<number, number>;
  /** Why the recording is not to be believed complete. */
  readonly doubts: readonly string[];
  /** Nothing is missing of it, as far as anyone can tell. */
  readonly complete: boolean;
}

const MAX_DAMAGES = 5;
/** Events that may wait for the first access. */
const MAX_EARLY = 1000;

/** Throws MmioError `usage` for an output that would be written over an input. */
function requireNoInput(inputs: readonly string[], outputs: readonly string[]): void {
  const read = new Map(inputs.map((path) => [fileIdOf(path, 0), path]));
  for (const path of outputs) {
    const id = fileIdOf(path, 1);
    const input = id === undefined ? undefined : read.get(id);
    if (input === undefined) continue;
    throw new MmioError('usage', 'the output is the input', {
      evidence: input === path ? path : `${path} and ${input} are one file`,
      hint: 'give the output another name',
    });
  }
}

/** Throws MmioError; then the outputs hold what was read until then. */
export async function convert(
  inputs: readonly string[],
  outputPaths: readonly string[],
  options: ConvertOptions,
): Promise<Converted> {
  requireNoInput(inputs, outputPaths);
  const recording = await openRecording(inputs, options);
  // Opened when there is something to write: a conversion that fails leaves what was there alone.
  let outputs: OutputSet | undefined;
  let early: RecordingEvent[] = [];
  const openOutputs = async () => {
    const opened = await OutputSet.open(outputPaths, {
      format: options.format,
      textExtra: options.textExtra,
      replaces: true,
    });
    outputs = opened;
    await opened.begin(recording.header);
    for (const event of early) await opened.write(event);
    early = [];
    return opened;
  };
  const totals = new TotalsAnalysis();
  const pass = new AnalysisPass([totals]);
  const damages: DamageEvent[] = [];
  let complete = false;
  let isUnwritable = false;
  const unwritable = (error: unknown) => {
    isUnwritable = true;
    throw error;
  };
  try {
    for await (const item of recording.items()) {
      pass.write(item);
      if (!isBatch(item) && item.kind === 'end') complete = item.complete;
      if (!isBatch(item) && item.kind === 'damage' && damages.length < MAX_DAMAGES) {
        damages.push(item);
      }
      if (outputs === undefined && !isBatch(item) && early.length < MAX_EARLY) {
        early.push(item);
        continue;
      }
      const written = (outputs ?? (await openOutputs())).write(item);
      if (written !== undefined) await written.catch(unwritable);
    }
    if (outputs === undefined) await openOutputs();
  } catch (error) {
    if (isUnwritable) await outputs?.discard();
    // What could be read of the input is worth having.
    else await outputs?.end();
    throw error;
  }
  await outputs?.end();
  const { unknownFrames = new Map(), doubts = [] } = recording;
  return { totals: totals.result(), damages, unknownFrames, doubts, complete };
}
