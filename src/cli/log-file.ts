/** `--log FILE`, or MMIOBRIDGE_LOG: what happens inside, for bug reports. */
import { openSync, writeSync } from 'node:fs';
import { MmioError, messageOf } from '../base/errors.ts';
import { log, logTo } from '../base/log.ts';
import { TOOL } from '../base/version.ts';
import { say } from './print.ts';

/** Appends; nobody else may read it. Throws MmioError `io`. */
export function openLog(path: string | undefined): void {
  const file = path ?? process.env['MMIOBRIDGE_LOG'] ?? '';
  if (file === '') return;
  let descriptor: number;
  try {
    descriptor = openSync(file, 'a', 0o600);
  } catch (error) {
    throw new MmioError('io', `cannot write the log ${file}`, {
      evidence: messageOf(error),
      hint: '--log and MMIOBRIDGE_LOG name a file that you may write to',
      cause: error,
    });
  }
  logTo((line) => {
    try {
      writeSync(descriptor, line);
    } catch (error) {
      // Whatever it is for goes on without it.
      logTo(undefined);
      say(`the log ${file} ends here: ${messageOf(error)}`);
    }
  });
  log('recording', () => `${TOOL}, Node ${process.version}: ${process.argv.slice(2).join(' ')}`);
}
