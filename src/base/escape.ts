/** Bytes as printable ASCII, others as `\xNN`, cut to `maxChars`: for evidence in errors. */
export function escapeBytes(bytes: Uint8Array, maxChars: number): string {
  let text = '';
  for (const byte of bytes) {
    const printable = byte >= 0x20 && byte < 0x7f && byte !== 0x5c;
    text += printable ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
    if (text.length >= maxChars) break;
  }
  return text.length > maxChars ? text.slice(0, maxChars) : text;
}
