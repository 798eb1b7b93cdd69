import type { Socket } from 'node:net';
import { MmioError, messageOf } from '../base/errors.ts';
import { execute } from './commands.ts';
import type { RegisterDevice } from './device.ts';
import { MessageReader } from './message-reader.ts';
import { CommandError, encodeError, encodeReply, type Message } from './protocol.ts';
import { agreeOnVersion } from './version.ts';

/**
 * Serves one client until it goes away, or says what no client says. What was wrong goes to
 * `onProblem`. A client that does not read its replies is not read from either.
 */
export function serve(
  socket: Socket,
  device: RegisterDevice,
  onProblem: (problem: MmioError) => void,
): void {
  const reader = new MessageReader();
  let agreed = false;

  const answer = (message: Message): Buffer => {
    try {
      const reply = agreed ? execute(device, message) : agreeOnVersion(message);
      agreed = true;
      return encodeReply(message, reply);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      onProblem(error);
      return encodeError(message, error.errno);
    }
  };

  const takeMessages = (): void => {
    try {
      while (!socket.writableNeedDrain && !socket.writableEnded) {
        const message = reader.next();
        if (message === undefined) return;
        const reply = answer(message);
        if (message.wantsReply) socket.write(reply);
        // Also one that keeps its half open is gone then.
        if (!agreed) socket.destroySoon();
      }
    } catch (error) {
      onProblem(error instanceof MmioError ? error : unexpected(error));
      socket.destroy();
    }
  };

  socket.on('data', (chunk: Buffer) => {
    if (socket.writableEnded) return;
    reader.push(chunk);
    takeMessages();
    if (socket.writableNeedDrain) socket.pause();
  });
  socket.on('drain', () => {
    takeMessages();
    if (!socket.writableNeedDrain) socket.resume();
  });
  socket.on('end', () => {
    if (reader.heldBytes === 0 || socket.writableEnded) return;
    onProblem(
      new MmioError('protocol', 'vfio-user: the client left in the middle of a message', {
        evidence: `${reader.heldBytes} bytes of it had come`,
      }),
    );
  });
  socket.on('error', (error) => {
    onProblem(
      new MmioError('closed', 'vfio-user: the connection broke', {
        evidence: messageOf(error),
        cause: error,
      }),
    );
  });
}

function unexpected(error: unknown): MmioError {
  return new MmioError('io', 'vfio-user: the server failed', {
    evidence: messageOf(error),
    cause: error,
  });
}
