import { escapeBytes } from '../base/escape.ts';
import {
  COMMANDS,
  CommandError,
  EINVAL,
  EVIDENCE_CHARS,
  MAJOR_VERSION,
  MINOR_VERSION,
  type Message,
} from './protocol.ts';

/**
 * Agrees on a version, by the first message of a connection; returns the payload of the reply. All
 * capabilities stay at what they are where nobody names them. Throws CommandError where there is no
 * agreeing.
 */
export function agreeOnVersion({ command, payload }: Message): Buffer {
  const evidence = escapeBytes(payload, EVIDENCE_CHARS);
  const refuse = (what: string) => new CommandError(EINVAL, `VERSION: ${what}`, evidence);
  if (command !== COMMANDS.VERSION) throw refuse(`command ${command} came before it`);
  if (payload.length < 4) throw refuse(`${payload.length} bytes of 4`);
  const major = payload.readUInt16LE(0);
  const minor = payload.readUInt16LE(2);
  if (major !== MAJOR_VERSION) {
    throw refuse(`the client speaks ${major}.${minor}, this server ${MAJOR_VERSION}.x`);
  }
  if (payload.length > 4 && !isJsonObject(payload.subarray(4))) {
    throw refuse('its data is not a JSON object that ends with a zero byte');
  }
  const reply = Buffer.alloc(4);
  reply.writeUInt16LE(MAJOR_VERSION, 0);
  reply.writeUInt16LE(MINOR_VERSION, 2);
  return Buffer.concat([reply, Buffer.from('{"capabilities":{}}\0')]);
}

function isJsonObject(bytes: Buffer): boolean {
  if (bytes.at(-1) !== 0) return false;
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8', 0, bytes.length - 1));
    return typeof value === 'object' && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
