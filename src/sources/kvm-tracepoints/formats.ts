/**
 * Where the fields of KVM's tracepoints lie in the kernel's ring buffer, as the running kernel says
 * itself (`events/kvm/*\/format`, `events/header_page`). They differ between kernels.
 */
import { MmioError } from '../../base/errors.ts';

export interface Field {
  readonly offset: number;
  readonly size: number;
}

/** One tracepoint: the number that its records begin with, and its fields by name. */
export interface EventFormat {
  readonly id: number;
  readonly fields: Readonly<Record<string, Field>>;
  /** Bytes that a record has at least: all its fields. */
  readonly sizeBytes: number;
}

export interface KvmFormats {
  /** Of one page of the ring buffer, with its head. */
  readonly pageBytes: number;
  /** Where the records begin. */
  readonly dataOffset: number;
  readonly emulate: EventFormat;
  readonly mmio: EventFormat;
  readonly pio: EventFormat;
  readonly exit: EventFormat;
}

/** The tracepoints that are read, and the fields that are needed of each. */
const NEEDED = {
  kvm_emulate_insn: { rip: 8, csbase: 4 },
  kvm_mmio: { type: 4, len: 4, gpa: 8, val: 8 },
  kvm_pio: { rw: 4, port: 4, size: 4, count: 4, val: 4 },
  kvm_exit: { exit_reason: 4, guest_rip: 8, info1: 8 },
} as const;

export const KVM_EVENTS = Object.keys(NEEDED);

/**
 * @param texts the files' texts, by `header_page` and the names of `KVM_EVENTS`
 * @throws MmioError `protocol` for a kernel whose records are not as we know them
 */
export function parseFormats(texts: Readonly<Record<string, string>>): KvmFormats {
  const data = fieldsOf(texts['header_page'] ?? '')['data'];
  const pageBytes = data === undefined ? 0 : data.offset + data.size;
  if (data === undefined || data.offset < 16 || pageBytes > 2 ** 20) {
    throw unknownKernel('header_page', texts['header_page'] ?? '');
  }
  const of = (name: keyof typeof NEEDED) => parseFormat(name, texts[name] ?? '', NEEDED[name]);
  return {
    pageBytes,
    dataOffset: data.offset,
    emulate: of('kvm_emulate_insn'),
    mmio: of('kvm_mmio'),
    pio: of('kvm_pio'),
    exit: of('kvm_exit'),
  };
}

function parseFormat(
  name: string,
  text: string,
  needed: Readonly<Record<string, number>>,
): EventFormat {
  const id = Number(/^ID: (\d+)$/m.exec(text)?.[1]);
  const fields = fieldsOf(text);
  const fits = Object.entries(needed).every(([field, size]) => fields[field]?.size === size);
  const pid = fields['common_pid'];
  const type = fields['common_type'];
  if (!Number.isInteger(id) || !fits || pid?.offset !== 4 || type?.offset !== 0) {
    throw unknownKernel(name, text);
  }
  const sizeBytes = Math.max(
    ...Object.keys(needed).map((field) => (fields[field]?.offset ?? 0) + (needed[field] ?? 0)),
  );
  return { id, fields, sizeBytes };
}

function fieldsOf(text: string): Record<string, Field> {
  const fields: Record<string, Field> = {};
  const pattern = /field:\s*[^;]*?(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);/g;
  for (const [, name = '', offset, size] of text.matchAll(pattern)) {
    fields[name] = { offset: Number(offset), size: Number(size) };
  }
  return fields;
}

function unknownKernel(name: string, text: string): MmioError {
  return new MmioError('protocol', `this kernel prints ${name} in a way that is not known`, {
    evidence: text.slice(0, 600),
    hint: "record without the kernel's tracepoints",
  });
}

/** What a session has to remember of its trace. */
export interface KvmTraceInfo {
  readonly instance: string;
  /** CLOCK_MONOTONIC from which times count, decimal. */
  readonly baseNs: string;
  /** Of this kernel; a spool can be read without a trace. */
  readonly formats: KvmFormats;
}
