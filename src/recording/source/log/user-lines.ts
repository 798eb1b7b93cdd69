/** The user's part of QEMU's log: QEMU has one, and while it is recorded it is ours. */
import { createReadStream } from 'node:fs';
import { systemCodeOf } from '../../../base/errors.ts';
import { QemuLogDecoder, type DecoderOptions } from '../../../sources/qemu-log/decoder.ts';
import type { UserLogWriter } from '../../session/user-log.ts';

/** What a decoder has to do with lines that are the user's. */
export function userLines(
  userLog: UserLogWriter | undefined,
): Pick<DecoderOptions, 'onOtherLine' | 'alsoOther'> {
  if (userLog === undefined) return {};
  return {
    onOtherLine: (line) => userLog.line(line),
    ...(userLog.wantsEvents && { alsoOther: (name: string) => userLog.wantsAlso(name) }),
  };
}

/** Gives the user what is theirs of a file of QEMU's log that is no part of the recording. */
export async function forwardUserLog(
  path: string,
  userLog: UserLogWriter | undefined,
): Promise<void> {
  if (userLog === undefined) return;
  const decoder = new QemuLogDecoder(userLines(userLog));
  const skip = () => {
    while (decoder.next() !== undefined);
  };
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      decoder.feed(chunk);
      skip();
    }
  } catch (error) {
    // QEMU did not get as far as making it.
    if (systemCodeOf(error) !== 'ENOENT') throw error;
  }
  decoder.finish();
  skip();
  await userLog.flush();
}
