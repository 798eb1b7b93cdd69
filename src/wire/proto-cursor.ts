const double = new Float64Array(1);
const doubleBytes = new Uint8Array(double.buffer);

/** Wire types of protobuf that captures use. */
export const Wire = { varint: 0, fixed64: 1, bytes: 2 } as const;

/**
 * Writes protobuf's wire format by hand into a buffer with enough room: for access batches, whose
 * columns would otherwise be copied once more through a list of closures.
 */
export class ProtoCursor {
  at: number;
  readonly #out: Uint8Array;

  constructor(out: Uint8Array, at: number) {
    this.#out = out;
    this.at = at;
  }

  /** An unsigned 32-bit integer. */
  varint(value: number): void {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.#out[this.at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#out[this.at++] = rest;
  }

  tag(field: number, wire: number): void {
    this.varint((field << 3) | wire);
  }

  uint32(field: number, value: number): void {
    this.tag(field, Wire.varint);
    this.varint(value);
  }

  sint32(field: number, value: number): void {
    this.uint32(field, (value << 1) ^ (value >> 31));
  }

  double(field: number, value: number): void {
    this.tag(field, Wire.fixed64);
    double[0] = value;
    this.#out.set(doubleBytes, this.at);
    this.at += 8;
  }

  bytes(field: number, value: Uint8Array): void {
    this.tag(field, Wire.bytes);
    this.varint(value.length);
    this.#out.set(value, this.at);
    this.at += value.length;
  }
}

/** How many bytes `value`, an unsigned 32-bit integer, takes. */
export function varintBytes(value: number): number {
  return value < 0x80
    ? 1
    : value < 0x4000
      ? 2
      : value < 0x20_0000
        ? 3
        : value < 0x1000_0000
          ? 4
          : 5;
}
