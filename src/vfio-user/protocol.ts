/**
 * What messages of vfio-user look like, after the "vfio-user Protocol Specification" of QEMU's
 * documentation (docs/interop/vfio-user.rst). Numbers are little-endian, as on the hosts that we
 * run on.
 */
import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';

export const HEADER_BYTES = 16;
/** What precedes the data of a region read or write: offset (8 bytes), region, count. */
export const TRANSFER_HEADER_BYTES = 16;
/** `max_data_xfer_size` where nobody says otherwise, and we do not. */
export const MAX_TRANSFER_BYTES = 1 << 20;
/** The longest message that a client may send: a region write. */
export const MAX_MESSAGE_BYTES = HEADER_BYTES + TRANSFER_HEADER_BYTES + MAX_TRANSFER_BYTES;

/** Of what a client sent, in errors. */
export const EVIDENCE_CHARS = 100;

/** The protocol version that we speak. */
export const MAJOR_VERSION = 0;
export const MINOR_VERSION = 0;

export const COMMANDS = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DEVICE_RESET: 13,
} as const;

/** errno of Linux. */
export const EIO = 5;
export const EINVAL = 22;
export const EOPNOTSUPP = 95;

const TYPE_MASK = 0xf;
const TYPE_COMMAND = 0;
const FLAG_REPLY = 1;
const FLAG_NO_REPLY = 0x10;
const FLAG_ERROR = 0x20;

/** A command of the client. */
export interface Message {
  readonly id: number;
  readonly command: number;
  readonly wantsReply: boolean;
  /** What follows the header. */
  readonly payload: Buffer;
}

/** A command that is answered with an error; the connection goes on. */
export class CommandError extends MmioError {
  /** Goes to the client. */
  readonly errno: number;

  constructor(errno: number, message: string, evidence: string, cause?: unknown) {
    super('protocol', `vfio-user: ${message}`, { evidence, cause });
    this.errno = errno;
  }
}

/**
 * The size of the message that these `HEADER_BYTES` begin. Throws MmioError `protocol` where no
 * command begins so: then nothing after it can be trusted.
 */
export function messageBytes(header: Buffer): number {
  const size = header.readUInt32LE(4);
  const type = header.readUInt32LE(8) & TYPE_MASK;
  if (size < HEADER_BYTES || size > MAX_MESSAGE_BYTES) {
    throw new MmioError('protocol', `vfio-user: a message cannot be ${size} bytes long`, {
      evidence: escapeBytes(header, EVIDENCE_CHARS),
      hint: `it has ${HEADER_BYTES} to ${MAX_MESSAGE_BYTES} bytes; is the client one of vfio-user?`,
    });
  }
  if (type !== TYPE_COMMAND) {
    const what = type === FLAG_REPLY ? 'a reply to what nobody asked' : `a message of type ${type}`;
    throw new MmioError('protocol', `vfio-user: ${what}`, {
      evidence: escapeBytes(header, EVIDENCE_CHARS),
      hint: 'a client sends commands only, for this server asks it nothing',
    });
  }
  return size;
}

/** @param bytes a whole message that `messageBytes` let pass; its payload is a view of it */
export function decodeMessage(bytes: Buffer): Message {
  return {
    id: bytes.readUInt16LE(0),
    command: bytes.readUInt16LE(2),
    wantsReply: (bytes.readUInt32LE(8) & FLAG_NO_REPLY) === 0,
    payload: bytes.subarray(HEADER_BYTES),
  };
}

export function encodeReply(to: Message, payload: Uint8Array): Buffer {
  const bytes = encode(to, FLAG_REPLY, 0, payload.length);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

export function encodeError(to: Message, errno: number): Buffer {
  return encode(to, FLAG_REPLY | FLAG_ERROR, errno, 0);
}

function encode(to: Message, flags: number, errno: number, payloadBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payloadBytes);
  bytes.writeUInt16LE(to.id, 0);
  bytes.writeUInt16LE(to.command, 2);
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.writeUInt32LE(flags, 8);
  bytes.writeUInt32LE(errno, 12);
  return bytes;
}
