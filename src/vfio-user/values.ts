/** A little-endian number without sign, of any number of bytes. */
export function valueOf(bytes: Uint8Array): bigint {
  if (bytes.length === 0) return 0n;
  return BigInt(`0x${Buffer.from(bytes.toReversed()).toString('hex')}`);
}

/** The lowest bytes of a number, the lowest first. */
export function bytesOf(value: bigint, lengthBytes: number): Buffer {
  const hex = BigInt.asUintN(8 * lengthBytes, value).toString(16);
  return Buffer.from(Buffer.from(hex.padStart(2 * lengthBytes, '0'), 'hex').toReversed());
}
