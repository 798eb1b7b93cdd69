/** How formats begin that people take for mmiotrace text. */
const BEGINNINGS: readonly (readonly [RegExp, string])[] = [
  [/^\x1f\x8b/, 'gzip-compressed data'],
  [/^\x28\xb5\x2f\xfd/, 'zstd-compressed data'],
  [/^\xfd7zXZ/, 'xz-compressed data'],
  [/^PK\x03\x04/, 'a zip archive'],
  [/^\x7fELF/, 'an ELF program'],
  [/^\x17\x08Dtracing/, 'a trace.dat of trace-cmd'],
  [/^(?:\xff\xfe|\xfe\xff)/, 'UTF-16 text'],
  [/^# tracer: /, 'an ftrace log of another tracer'],
  [/^\s*[{[]/, 'JSON'],
  [/^\s*</, 'XML or HTML'],
  [/^(?:\d+@[\d.]+:|\d{4}-\d\d-\d\dT\S+ )?(?:vfio|pci|memory_region)_\w+ /m, 'a QEMU trace log'],
  // Anything but printable ASCII, white space and UTF-8's bytes.
  [/[\x00-\x08\x0e-\x1f]/, 'binary data'],
];

/** What a file looks like whose first bytes are `head`. */
export function looksLike(head: Uint8Array): string {
  if (head.length === 0) return 'an empty file';
  const text = Buffer.from(head).toString('latin1');
  return BEGINNINGS.find(([pattern]) => pattern.test(text))?.[1] ?? 'text of another kind';
}
