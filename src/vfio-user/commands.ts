import { hex } from '../base/format.ts';
import { messageOf } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import { REGION_COUNT, type RegisterDevice } from './device.ts';
import {
  COMMANDS,
  CommandError,
  EINVAL,
  EIO,
  EOPNOTSUPP,
  EVIDENCE_CHARS,
  MAX_TRANSFER_BYTES,
  TRANSFER_HEADER_BYTES,
  type Message,
} from './protocol.ts';

/** VFIO_DEVICE_FLAGS_RESET and VFIO_DEVICE_FLAGS_PCI. */
const DEVICE_FLAGS = 3;
/** VFIO_REGION_INFO_FLAG_READ and _WRITE: none can be mapped, so that each access comes here. */
const REGION_FLAGS = 3;
/** INTx, MSI, MSI-X, error, request: the device has none of each. */
const IRQ_TYPES = 5;
/** VFIO_IRQ_SET_DATA_NONE */
const IRQ_DATA_NONE = 1;

const NOTHING = Buffer.alloc(0);

/**
 * Does what a client asks of a device, once the version is agreed on; returns the payload of the
 * reply. Throws CommandError for what cannot be done.
 */
export function execute(device: RegisterDevice, { command, payload }: Message): Buffer {
  switch (command) {
    case COMMANDS.REGION_READ:
      return regionRead(device, payload);
    case COMMANDS.REGION_WRITE:
      return regionWrite(device, payload);
    case COMMANDS.DMA_MAP:
      requireSize('DMA_MAP', payload, 32);
      return NOTHING;
    case COMMANDS.DMA_UNMAP:
      requireSize('DMA_UNMAP', payload, 24);
      return payload;
    case COMMANDS.DEVICE_GET_INFO:
      return info('DEVICE_GET_INFO', payload, numbers(0, DEVICE_FLAGS, REGION_COUNT, IRQ_TYPES));
    case COMMANDS.DEVICE_GET_REGION_INFO:
      return regionInfo(device, payload);
    case COMMANDS.DEVICE_GET_IRQ_INFO:
      return irqInfo(payload);
    case COMMANDS.DEVICE_SET_IRQS:
      return setIrqs(payload);
    case COMMANDS.DEVICE_RESET:
      requireSize('DEVICE_RESET', payload, 0);
      device.reset();
      return NOTHING;
    case COMMANDS.VERSION:
      return refuse('VERSION: it is agreed on already', payload);
    default:
      throw new CommandError(
        EOPNOTSUPP,
        `command ${command} is not one that this server knows`,
        escapeBytes(payload, EVIDENCE_CHARS),
      );
  }
}

function regionRead(device: RegisterDevice, payload: Buffer): Buffer {
  requireSize('REGION_READ', payload, TRANSFER_HEADER_BYTES);
  const { region, offset, count } = transferOf('REGION_READ', device, payload);
  return Buffer.concat([payload, guarded('read', () => device.read(region, offset, count))]);
}

function regionWrite(device: RegisterDevice, payload: Buffer): Buffer {
  const { region, offset, count } = transferOf('REGION_WRITE', device, payload);
  requireSize('REGION_WRITE', payload, TRANSFER_HEADER_BYTES + count);
  const data = payload.subarray(TRANSFER_HEADER_BYTES);
  guarded('write', () => device.write(region, offset, data));
  return payload.subarray(0, TRANSFER_HEADER_BYTES);
}

interface Transfer {
  readonly region: number;
  readonly offset: number;
  readonly count: number;
}

/** The place of an access, which is within its region. */
function transferOf(name: string, device: RegisterDevice, payload: Buffer): Transfer {
  if (payload.length < TRANSFER_HEADER_BYTES) requireSize(name, payload, TRANSFER_HEADER_BYTES);
  const offset = Number(payload.readBigUInt64LE(0));
  const region = payload.readUInt32LE(8);
  const count = payload.readUInt32LE(12);
  const size = device.regionBytes(region);
  if (count === 0 || count > MAX_TRANSFER_BYTES || offset + count > size) {
    const place = `region ${region}, which has ${size} bytes`;
    refuse(`${name}: ${count} bytes at ${hex(offset)} of ${place}`, payload);
  }
  return { region, offset, count };
}

/** What a device does of its own can fail in any way: that is no end of the connection. */
function guarded<T>(what: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw new CommandError(EIO, `the device failed in a ${what}`, messageOf(error), error);
  }
}

function regionInfo(device: RegisterDevice, payload: Buffer): Buffer {
  const name = 'DEVICE_GET_REGION_INFO';
  requireSize(name, payload, 32);
  const index = payload.readUInt32LE(8);
  if (index >= REGION_COUNT) refuse(`${name}: there is no region ${index}`, payload);
  const size = device.regionBytes(index);
  const reply = numbers(0, size === 0 ? 0 : REGION_FLAGS, index, 0, 0, 0, 0, 0);
  reply.writeBigUInt64LE(BigInt(size), 16);
  return info(name, payload, reply);
}

function irqInfo(payload: Buffer): Buffer {
  const name = 'DEVICE_GET_IRQ_INFO';
  requireSize(name, payload, 16);
  const index = payload.readUInt32LE(8);
  if (index >= IRQ_TYPES) refuse(`${name}: there is no interrupt type ${index}`, payload);
  return info(name, payload, numbers(0, 0, index, 0));
}

/** To switch off what is not there is fine. */
function setIrqs(payload: Buffer): Buffer {
  if (payload.length < 20) requireSize('DEVICE_SET_IRQS', payload, 20);
  const off = (payload.readUInt32LE(4) & IRQ_DATA_NONE) !== 0 && payload.readUInt32LE(16) === 0;
  if (!off) refuse('DEVICE_SET_IRQS: the device has no interrupts', payload);
  return NOTHING;
}

/** The reply to a request that begins with `argsz`, the room that the client has for it. */
function info(name: string, payload: Buffer, reply: Buffer): Buffer {
  requireSize(name, payload, reply.length);
  const room = payload.readUInt32LE(0);
  if (room < reply.length) refuse(`${name}: room for ${room} of ${reply.length} bytes`, payload);
  reply.writeUInt32LE(reply.length, 0);
  return reply;
}

function numbers(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, 4 * index);
  return bytes;
}

function requireSize(name: string, payload: Buffer, wanted: number): void {
  if (payload.length === wanted) return;
  refuse(`${name}: ${payload.length} bytes follow the header, not ${wanted}`, payload);
}

function refuse(what: string, payload: Buffer): never {
  throw new CommandError(EINVAL, what, escapeBytes(payload, EVIDENCE_CHARS));
}
