import { Lab, LabFailure } from './lab.ts';

/** No attempt begins later than this: the last one has to end within the tests' own limit. */
const TRYING_MS = 900_000;

/**
 * Runs L2 until a run comes to its end.
 *
 * All of the hardware is emulated. The crashes that were known have a cause, which L1 is kept from
 * (see l1.sh); should L1 or L2 crash or hang for another, the run says nothing. It is done again, in an
 * L1 that has just booted, and that and why is told on the terminal.
 *
 * @param attempt throws LabFailure where L2 did not come to its end; another error ends it at once
 */
export async function untilL2Ends<T>(attempt: (lab: Lab) => Promise<T>): Promise<T> {
  const failures: string[] = [];
  const began = performance.now();
  do {
    const lab = await Lab.start();
    try {
      return await attempt(lab);
    } catch (error) {
      if (!(error instanceof LabFailure)) throw error;
      failures.push(error.message);
      process.stderr.write(
        `run ${failures.length} of L2 did not come to its end: ${error.message}\n`,
      );
      await lab.stop();
    }
  } while (performance.now() - began < TRYING_MS);
  throw new Error(`no run of L2 came to its end:\n${failures.join('\n')}`);
}
