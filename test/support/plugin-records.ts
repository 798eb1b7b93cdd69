import { RECORD_BYTES, RecordField, WireType, message } from '../../src/sources/plugin/wire.ts';

export interface PluginRecord {
  /** Since 1970, in nanoseconds. */
  readonly timeNs: bigint;
  readonly vcpu: number;
  readonly number: number;
  readonly gpa?: number;
  readonly value?: bigint;
  readonly width?: number;
  readonly write?: boolean;
}

/** Records as the plugin sends them, one behind the other. */
export function recordBytes(records: readonly PluginRecord[]): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES * records.length);
  for (const [index, record] of records.entries()) {
    const at = RECORD_BYTES * index;
    bytes.writeBigUInt64LE(record.timeNs, at + RecordField.timeNs);
    bytes.writeBigUInt64LE(BigInt(record.gpa ?? 0xe1000004), at + RecordField.gpa);
    bytes.writeBigUInt64LE(record.value ?? 0n, at + RecordField.valueLo);
    bytes.writeUInt32LE(record.number, at + RecordField.number);
    bytes.writeUInt16LE(record.vcpu, at + RecordField.vcpu);
    bytes.writeUInt8(record.width ?? 4, at + RecordField.width);
    bytes.writeUInt8(record.write === true ? 1 : 0, at + RecordField.flags);
  }
  return bytes;
}

export function recordsMessage(records: readonly PluginRecord[]): Buffer {
  return message(WireType.records, recordBytes(records));
}
