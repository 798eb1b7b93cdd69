/** What a program in a guest wrote, as text: the guest decides in which encoding, and says nothing of it. */

const UTF8 = new TextDecoder('utf-8', { fatal: true });

/**
 * UTF-16 by its mark, or by every second byte of the beginning being zero (PowerShell, wmic); UTF-8
 * where it is that; else Windows-1252. Line ends become LF.
 */
export function guestText(bytes: Uint8Array): string {
  return decode(bytes).replaceAll('\r\n', '\n');
}

function decode(bytes: Uint8Array): string {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder('utf-16be').decode(bytes);
  if (looksUtf16(bytes)) return new TextDecoder('utf-16le').decode(bytes);
  try {
    return UTF8.decode(bytes);
  } catch {
    return new TextDecoder('windows-1252').decode(bytes);
  }
}

function looksUtf16(bytes: Uint8Array): boolean {
  const length = Math.min(bytes.length & ~1, 64);
  if (length < 4) return false;
  for (let at = 0; at < length; at += 2) {
    if (bytes[at] === 0 || bytes[at + 1] !== 0) return false;
  }
  return true;
}
