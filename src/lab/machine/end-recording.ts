/** The end of a recording, with nobody there who would make room for it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MmioError } from '../../base/errors.ts';
import type { RecordingEnd } from '../../recording/run/recorder.ts';
import type { RunningRecording } from '../../recording/run/running-recording.ts';

const LOOK_MS = 500;
/** Whoever is there may make room; a run without a person ends. */
const STALL_LIMIT_MS = 30_000;

/**
 * Ends a recording, and waits until all of it is written. Throws MmioError `io` where its outputs have
 * had no room for half a minute: what they do not have is in the session then, for `resume`, once this
 * process is gone; or what `running`, its loop, fails with.
 */
export async function endRecording(
  recording: RunningRecording,
  running: Promise<RecordingEnd>,
): Promise<RecordingEnd> {
  const stop = new AbortController();
  const stalled = watchStall(recording, stop.signal);
  try {
    await recording.end();
    return await Promise.race([running, stalled]);
  } finally {
    stop.abort();
  }
}

async function watchStall(recording: RunningRecording, signal: AbortSignal): Promise<never> {
  for (let sinceMs = performance.now(); ;) {
    await sleep(LOOK_MS, undefined, { ref: false });
    if (signal.aborted) return new Promise<never>(() => undefined);
    const { stalled } = await recording.status();
    if (stalled === null) sinceMs = performance.now();
    else if (performance.now() - sinceMs > STALL_LIMIT_MS) {
      throw new MmioError('io', 'there is no room for the rest of the recording', {
        evidence: stalled,
        hint: 'nothing is lost: make room, then mmiobridge lab clean',
      });
    }
  }
}
