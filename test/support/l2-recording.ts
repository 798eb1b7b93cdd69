import { existsSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { CliResult } from './cli.ts';
import { untilL2Ends } from './l2-attempts.ts';
import { LabFailure, type LabPlace, l2Guest, type L2Task, PASSED_THROUGH } from './lab.ts';

export interface L2Recording {
  readonly place: LabPlace;
  readonly result: CliResult;
}

export interface L2RecordingOptions {
  readonly tasks: readonly L2Task[];
  readonly processors: number;
  /** Options of `record`. */
  readonly record?: readonly string[];
  /** Further properties of the card: `,x-no-mmap=off`. */
  readonly card?: string;
  /** Further words of L2's kernel. */
  readonly kernelWords?: string;
}

/** A machine may be slow, 320 s for one were seen, and what hangs is rare. */
const LIMIT_MS = 500_000;
/** Without a line on its console or an access: more than a slow one was silent for. */
const SILENCE_MS = 150_000;
const OUTPUTS = ['ours.mmiotrace', 'ours.ndjson'];

/**
 * Has L2 do its tasks with the card passed through, and records them into ours.mmiotrace and
 * ours.ndjson.
 */
export function recordL2(options: L2RecordingOptions): Promise<L2Recording> {
  return untilL2Ends(async (lab) => {
    await lab.shell(`node dist/cli/main.js bind ${PASSED_THROUGH}`);
    const place = lab.place();
    const guest = await l2Guest({ ...options, out: place });
    const outputs = OUTPUTS.flatMap((name) => ['-o', place.path(name)]);
    const args = ['record', ...(options.record ?? []), ...outputs, '--', ...guest];
    const result = await unlessSilent(place, lab.cli(args, { timeoutMs: LIMIT_MS }));
    // Whatever the recording says then, it counts.
    const said = consoleOf(place);
    if (said.includes('Power down')) return { place, result };
    throw new LabFailure(`${said}\n${result.stderr}`);
  });
}

/** Empty where QEMU has not even begun. */
function consoleOf(place: LabPlace): string {
  return existsSync(place.path('console')) ? place.text('console') : '';
}

/** Throws LabFailure with the console where nothing comes any more. */
async function unlessSilent<T>(place: LabPlace, running: Promise<T>): Promise<T> {
  const sizeOf = (name: string) => statSync(place.path(name), { throwIfNoEntry: false })?.size ?? 0;
  const size = () => [...OUTPUTS, 'console'].reduce((sum, name) => sum + sizeOf(name), 0);
  let isOver = false;
  const silence = async (): Promise<never> => {
    let before = size();
    for (let sinceMs = performance.now(); performance.now() - sinceMs < SILENCE_MS;) {
      await sleep(500, undefined, { ref: false });
      if (isOver) return new Promise(() => undefined);
      if (size() === before) continue;
      before = size();
      sinceMs = performance.now();
    }
    throw new LabFailure(`nothing comes from L2 any more:\n${consoleOf(place)}`);
  };
  try {
    return await Promise.race([running, silence()]);
  } finally {
    isOver = true;
    // It ends with L1, and nobody waits for it then.
    running.catch(() => undefined);
  }
}

/** Every access to every BAR of the card is in it. */
export function expectWhole({ result }: L2Recording): void {
  expect(result.stderr).toContain('loss      none');
  expect(result.stderr).toContain(
    'coverage  complete: every access to nic0 BAR0, nic0 BAR1, nic0 BAR2, nic0 BAR3 is trapped',
  );
  expect(result.status, result.stderr).toBe(0);
}
