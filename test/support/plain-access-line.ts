/*
 * The plain twin of src/sources/mmiotrace/access-lines.ts: what an R or W line of mmiotrace text
 * is, one step after the other, with BigInt.
 */

export interface PlainAccess {
  readonly op: 'R' | 'W';
  readonly width: number;
  readonly timeUs: bigint;
  readonly mapId: bigint;
  readonly phys: bigint;
  readonly value: bigint;
  readonly pc: bigint;
}

const FIELD = {
  op: /^[RW]$/,
  width: /^[1248]$/,
  time: /^[0-9]{1,10}\.[0-9]{6}$/,
  decimal: /^-?[0-9]{1,10}$/,
  hex: /^0x[0-9a-fA-F]{1,16}$/,
};
const LINE = [
  FIELD.op,
  FIELD.width,
  FIELD.time,
  FIELD.decimal,
  FIELD.hex,
  FIELD.hex,
  FIELD.hex,
  FIELD.decimal,
];

/** `line` without LF. Undefined if it is not an access line. */
export function plainAccess(line: string): PlainAccess | undefined {
  const fields = line.replace(/[ \r]+$/, '').split(' ');
  if (fields.length !== LINE.length) return undefined;
  if (!fields.every((field, i) => LINE[i]?.test(field) === true)) return undefined;
  const [op, width, time = '', mapId = '', phys = '', value = '', pc = ''] = fields;
  const [sec = '', usec = ''] = time.split('.');
  const access = {
    op: op === 'R' ? 'R' : 'W',
    width: Number(width),
    timeUs: BigInt(sec) * 1_000_000n + BigInt(usec),
    mapId: BigInt(mapId),
    phys: BigInt(phys),
    value: BigInt(value),
    pc: BigInt(pc),
  } as const;
  const good =
    BigInt(sec) < 2n ** 32n &&
    access.mapId === BigInt.asIntN(32, access.mapId) &&
    access.phys < 2n ** 53n &&
    access.value < 2n ** BigInt(8 * access.width);
  return good ? access : undefined;
}
