import { expect } from 'vitest';
import type { CliResult } from './cli.ts';
import { Lab, type LabPlace, l2Guest, type L2Task, PASSED_THROUGH } from './lab.ts';

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

/** Some ten times what the longest takes: a machine may be slow, and what hangs is rare. */
const LIMIT_MS = 240_000;
const ATTEMPTS = 4;

/**
 * Has L2 do its tasks with the card passed through, and records them into ours.mmiotrace and
 * ours.ndjson.
 *
 * SVM is emulated here, and at times L1's kernel, or L2's, crashes or hangs in it. Such a run says
 * nothing, and is done again with an L1 that has just booted; a run whose guest came to its end
 * counts, whatever the recording says.
 */
export async function recordL2(options: L2RecordingOptions): Promise<L2Recording> {
  const failures: string[] = [];
  while (failures.length < ATTEMPTS) {
    const lab = await Lab.start();
    await lab.shell(`node dist/cli/main.js bind ${PASSED_THROUGH}`);
    const place = lab.place();
    const guest = await l2Guest({ ...options, out: place });
    const outputs = ['ours.mmiotrace', 'ours.ndjson'].flatMap((name) => ['-o', place.path(name)]);
    try {
      const result = await lab.cli(
        ['record', ...(options.record ?? []), ...outputs, '--', ...guest],
        {
          timeoutMs: LIMIT_MS,
        },
      );
      if (place.text('console').includes('Power down')) return { place, result };
      failures.push(`L2 did not come to its end:\n${place.text('console')}\n${result.stderr}`);
    } catch (error) {
      failures.push(String(error));
      await lab.stop();
    }
  }
  throw new Error(`no run of the lab came to its end:\n${failures.join('\n')}`);
}

/** Every access to every BAR of the card is in it. */
export function expectWhole({ result }: L2Recording): void {
  expect(result.stderr).toContain('loss      none');
  expect(result.stderr).toContain(
    'coverage  complete: every access to nic0 BAR0, nic0 BAR1, nic0 BAR2, nic0 BAR3 is trapped',
  );
  expect(result.status, result.stderr).toBe(0);
}
