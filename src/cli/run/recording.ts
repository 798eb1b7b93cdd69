/** Runs a recording that has begun to its end: terminal, signals, summary, exit status. */
import { rmSync } from 'node:fs';
import { basename } from 'node:path';
import { MmioError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { isAlive } from '../../machine/proc.ts';
import type { RecordingEnd } from '../../recording/run/recorder.ts';
import type { RunningRecording } from '../../recording/run/running-recording.ts';
import type { Started } from '../../recording/begin/assemble.ts';
import { closeSession } from '../../recording/begin/close.ts';
import { Interrupts, type Interrupt } from '../interrupts.ts';
import type { LivePage } from '../live-page.ts';
import { EXIT, say, sayError } from '../print.ts';
import { formatMissing, formatSummary } from '../summary.ts';
import { Terminal } from '../terminal.ts';

export interface RunOptions {
  /** Said when it has begun. */
  readonly begun: (session: string) => string;
  readonly busiest: number;
  /** Ends by itself after so long. */
  readonly seconds: number | undefined;
  /** Shows it in a browser while it runs, and, if it is to stay, until Ctrl-C after that. */
  readonly page?:
    { readonly path: string; readonly port: number; readonly stays: boolean } | undefined;
}

/** Returns the exit status. Throws what `begin`, or the recording, failed with. */
export async function runRecording(
  begin: (signal: AbortSignal) => Promise<Started>,
  options: RunOptions,
): Promise<number> {
  using interrupts = new Interrupts();
  const started = await beginUntil(begin, interrupts, options.seconds);
  if (started === undefined) return EXIT.interrupted;
  const { recording, child, info } = started;
  say(options.begun(info.id));
  const page = await startPage(options.page);
  let interrupted = false;
  const end = () => void recording.end();
  const interrupt = () => {
    if (interrupted) {
      terminal.stop();
      killNow(started);
      process.exit(EXIT.interrupted);
    }
    interrupted = true;
    say('ending the recording (Ctrl-C again kills)');
    end();
  };
  // A terminal that is closed may say so twice: the kernel does, and the shell.
  const hangUp = () => {
    if (!interrupted) interrupt();
  };
  const terminal = new Terminal(
    {
      status: () => recording.status(),
      mark: (text) => recording.mark(text),
      quit: end,
      interrupt,
    },
    // Keys are QEMU's where it has the terminal.
    child?.usesStdio !== true,
  );
  // With the terminal gone nobody reads what we say, and the recording goes on to its clean end.
  process.stderr.on('error', () => undefined);
  terminal.start();
  interrupts.listen((signal) => (signal === 'SIGHUP' ? hangUp() : interrupt()));
  const timer = options.seconds === undefined ? undefined : setTimeout(end, options.seconds * 1000);
  let result: RecordingEnd;
  let seconds: number;
  try {
    result = await recording.run();
    // Also what was before a resume.
    seconds = (await recording.status()).elapsedSeconds;
  } catch (error) {
    throw await abandon(started, error);
  } finally {
    terminal.stop();
    clearTimeout(timer);
    interrupts[Symbol.dispose]();
  }
  const words = await closeSession(started);
  report(started, result, options, seconds);
  const died = result.vm?.exit?.signal ?? undefined;
  if (words !== '') say(`QEMU said\n  ${words.replaceAll('\n', '\n  ')}`);
  if (died !== undefined && !interrupted) {
    say(`mmiobridge: QEMU was ended by ${died}; the log is whole up to its last line`);
    return EXIT.failure;
  }
  const code = result.vm?.exit?.code ?? 0;
  if (code !== 0) say(`QEMU ended with status ${code}`);
  if (page !== undefined && options.page?.stays === true && !interrupted) {
    say(`the page stays open until Ctrl-C: ${page.url}`);
    using last = new Interrupts();
    // The page's thread does not keep the process.
    const awake = setInterval(() => undefined, 60_000);
    await new Promise<void>((resolve) => {
      last.listen(() => resolve());
    });
    clearInterval(awake);
  }
  await page?.close();
  if (result.removed.length > 0) return EXIT.failure;
  if (interrupted) return EXIT.interrupted;
  return result.complete ? EXIT.complete : EXIT.incomplete;
}

/**
 * An output that is full from its first byte keeps a recording from beginning: Ctrl-C, and the time
 * that it was to take, end the wait. undefined: by Ctrl-C. Throws what `begin` failed with.
 */
async function beginUntil(
  begin: (signal: AbortSignal) => Promise<Started>,
  interrupts: Interrupts,
  seconds: number | undefined,
): Promise<Started | undefined> {
  const waiting = new AbortController();
  let early: Interrupt | undefined;
  interrupts.listen((signal) => {
    if (early !== undefined) process.exit(EXIT.interrupted);
    early = signal;
    waiting.abort();
  });
  const timer =
    seconds === undefined ? undefined : setTimeout(() => waiting.abort(), seconds * 1000);
  try {
    const started = await begin(waiting.signal);
    interrupts.remember(early);
    return started;
  } catch (error) {
    if (early === undefined) throw error;
    sayError(error, false);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** A recording goes on without its page, too. */
async function startPage(wanted: RunOptions['page']): Promise<LivePage | undefined> {
  if (wanted === undefined) return undefined;
  const { startLivePage } = await import('../live-page.ts');
  try {
    const { path, port } = wanted;
    const page = await startLivePage({ port, token: undefined });
    page.show({ id: '1', path, name: basename(path), state: 'recording' });
    say(`page      ${page.url}`);
    return page;
  } catch (error) {
    sayError(error, false);
    say('  the recording goes on without a page: mmiobridge view shows it');
    return undefined;
  }
}

function report(started: Started, end: RecordingEnd, options: RunOptions, seconds: number): void {
  const { counters, coverage } = end;
  const counts = started.counts.result();
  const facts = { tables: started.counts.tables, counts, counters, coverage, seconds };
  for (const line of formatSummary({ ...facts, busiest: options.busiest })) say(line);
  for (const path of started.info.outputs) {
    if (end.removed.includes(path)) say(`REMOVED   ${path}: somebody took it away meanwhile`);
    else if (path !== '-') say(`written   ${path}`);
  }
  const { remote } = started.info;
  if (remote !== undefined) say(`sent to   ${remote.address}`);
  if (!end.complete) say(`mmiobridge: the recording is INCOMPLETE: ${formatMissing(end)}`);
}

/**
 * Twice means now. What is in the outputs stays; a QEMU of ours, and what it left, goes with us, but
 * for what a collector is still to get.
 */
function killNow({ child, info, folder }: Started): void {
  if (!info.launched) {
    say(`stopped at once: resume it with mmiobridge resume ${info.id}`);
    return;
  }
  const { qemu } = info;
  child?.killNow();
  if (qemu !== undefined && isAlive(qemu.pid, qemu.startTime)) process.kill(qemu.pid, 'SIGKILL');
  if (info.remote !== undefined) {
    say(
      `killed: what the collector does not have yet is kept: mmiobridge resume ${info.id} sends it`,
    );
    return;
  }
  for (const path of [info.spoolDir, folder.path]) rmSync(path, { recursive: true, force: true });
  say('killed: the outputs end where they were');
}

/** What becomes of the accesses that are not in the outputs. */
const REST: Readonly<Record<RunningRecording['guestState'], string>> = {
  paused: 'the guest is paused and nothing is lost',
  ended: 'QEMU has ended and nothing is lost',
  running: 'the guest could not be paused, and what it does goes to the spool while there is room',
};

/** The recording failed. Where it can go on later, the guest waits; else a QEMU of ours is ended. */
async function abandon(
  { recording, child, info, folder }: Started,
  cause: unknown,
): Promise<unknown> {
  if (!recording.canResume) {
    await child?.terminate(1000);
    await folder.remove();
    return cause;
  }
  // QEMU is our child, and would keep us here until it ends.
  setImmediate(() => process.exit());
  const hint = `${REST[recording.guestState]}: mend it, then mmiobridge resume ${info.id}`;
  if (cause instanceof MmioError) {
    const { code, message, evidence } = cause;
    return new MmioError(code, message, { evidence, hint, cause });
  }
  if (systemCodeOf(cause) !== undefined) {
    return new MmioError('io', messageOf(cause), { hint, cause });
  }
  say(hint);
  return cause;
}
