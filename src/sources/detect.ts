import { MAGIC } from '../wire/frame.ts';

export const INPUT_FORMATS = ['qemu-log', 'capture', 'mmiotrace'] as const;
export type InputFormat = (typeof INPUT_FORMATS)[number];

/** mmiotrace text begins with its version; a piece of it, with any of its other lines. */
const MMIOTRACE =
  /^(VERSION \d|PCIDEV [0-9a-f]{4} |(R|W) \d+ \d+\.\d+ |(MAP|UNMAP|MARK|UNKNOWN) \d+\.\d|LSPCI )/m;
const LOOK_AT_BYTES = 4096;

/** What an input is, by its first bytes; a QEMU log may begin with anything. */
export function detectFormat(head: Uint8Array): InputFormat {
  const start = Buffer.from(head.subarray(0, LOOK_AT_BYTES));
  if (MAGIC.every((byte, index) => start[index] === byte)) return 'capture';
  return MMIOTRACE.test(start.toString('latin1')) ? 'mmiotrace' : 'qemu-log';
}
