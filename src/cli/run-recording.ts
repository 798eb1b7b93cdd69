/** Runs a recording that has begun to its end: terminal, signals, summary, exit status. */
import { rm } from 'node:fs/promises';
import { MmioError } from '../base/errors.ts';
import type { RecordingEnd } from '../recording/recorder.ts';
import type { Started } from '../recording/record.ts';
import { EXIT, say } from './print.ts';
import { formatSummary } from './summary.ts';
import { Terminal } from './terminal.ts';

export interface RunOptions {
  /** QEMU has the terminal: keys are not ours. */
  readonly qemuHasTerminal: boolean;
  readonly busiest: number;
  /** Ends by itself after so long. */
  readonly seconds: number | undefined;
}

/** Returns the exit status. Throws what the recording failed with. */
export async function runRecording(started: Started, options: RunOptions): Promise<number> {
  const { live, child, info, dir } = started;
  let interrupted = false;
  const end = () => void live.end().catch((error: unknown) => say(String(error)));
  const interrupt = () => {
    if (interrupted) {
      // Twice means now. What is in the outputs stays; a QEMU of ours goes with us.
      child?.killNow();
      terminal.stop();
      say(child === undefined ? `stopped at once: mmiobridge resume ${info.id} goes on` : 'killed');
      process.exit(EXIT.interrupted);
    }
    interrupted = true;
    say('ending the recording (Ctrl-C again kills)');
    end();
  };
  const terminal = new Terminal(
    { status: () => live.status(), mark: (text) => live.mark(text), quit: end, interrupt },
    !options.qemuHasTerminal,
  );
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, interrupt);
  terminal.start();
  const timer = options.seconds === undefined ? undefined : setTimeout(end, options.seconds * 1000);
  const startMs = performance.now();
  let result: RecordingEnd;
  try {
    result = await live.run();
  } catch (error) {
    throw await abandon(started, error);
  } finally {
    terminal.stop();
    clearTimeout(timer);
    for (const signal of signals) process.off(signal, interrupt);
  }
  if (dir.spool !== info.spoolDir) await rm(info.spoolDir, { recursive: true, force: true });
  const words = (await child?.lastWords()) ?? '';
  await dir.remove();
  report(started, result, options, (performance.now() - startMs) / 1000);
  const died = result.vm?.exit?.signal ?? undefined;
  if (words !== '') say(`QEMU said\n  ${words.replaceAll('\n', '\n  ')}`);
  if (died !== undefined && !interrupted) {
    say(`mmiobridge: QEMU was ended by ${died}; the log is whole up to its last line`);
    return EXIT.failure;
  }
  const code = result.vm?.exit?.code ?? 0;
  if (code !== 0) say(`QEMU ended with status ${code}`);
  if (interrupted) return EXIT.interrupted;
  return result.complete ? EXIT.complete : EXIT.incomplete;
}

function report(started: Started, end: RecordingEnd, options: RunOptions, seconds: number): void {
  const { counters, coverage } = end;
  const facts = { statistics: started.statistics, counters, coverage, seconds };
  for (const line of formatSummary({ ...facts, busiest: options.busiest })) say(line);
  for (const path of started.info.outputs) {
    if (path !== '-') say(`written   ${path}`);
  }
  if (!end.complete) say('mmiobridge: the recording is INCOMPLETE: see loss and coverage above');
}

/** The recording failed. Where it can go on later, the guest waits; else a QEMU of ours is ended. */
async function abandon({ live, child, info, dir }: Started, cause: unknown): Promise<unknown> {
  if (!live.canResume) {
    await child?.terminate(1000);
    await dir.remove();
    return cause;
  }
  if (!(cause instanceof MmioError)) return cause;
  return new MmioError(cause.code, cause.message, {
    evidence: cause.evidence,
    hint: `the guest is paused and nothing is lost: mend it, then mmiobridge resume ${info.id}`,
    cause,
  });
}
