import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import { ByteWindow } from './byte-window.ts';
import { crc32c } from './crc32c.ts';
import {
  FILE_HEADER_BYTES,
  FORMAT_VERSION,
  FRAME_HEADER_BYTES,
  MAGIC,
  MAX_PAYLOAD_BYTES,
  readU32,
} from './frame.ts';

/** A frame whose checksum is right. The payload is valid until the next piece is asked for. */
export interface FramePiece {
  readonly kind: 'frame';
  /** Of the frame's header, from the start of the file. */
  readonly offset: number;
  readonly payload: Uint8Array;
}

/** Bytes that are not read as data. Nothing follows the piece if `final`. */
export interface DamagePiece {
  readonly kind: 'damage';
  readonly offset: number;
  /** How many bytes are left out; -1 where reading stops with the rest of the file unseen. */
  readonly lengthBytes: number;
  readonly reason: string;
  /** The first bytes. */
  readonly evidence: Uint8Array;
  readonly final: boolean;
}

/** How many bytes of evidence a piece carries. */
const EVIDENCE_BYTES = 50;

// A frame that fails its checksum may have a wrong length, and then what seems to follow it is
// garbage. So it is stepped over only if the next one is whole, and nothing is said until that is
// known. A length of 0 is no frame: the holes that a crash leaves in a file are zeros, whose
// checksum would be right.

/**
 * Takes the bytes of a capture, in chunks of any size, apart into frames. Holds one frame in memory
 * at a time. Throws MmioError `damaged` if it does not begin as a capture of our version; everything
 * that is wrong after that comes as a piece.
 */
export async function* readFrames(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<FramePiece | DamagePiece, void, undefined> {
  const window = new ByteWindow(chunks);
  try {
    await readFileHeader(window);
    let suspect: { readonly offset: number; readonly evidence: Uint8Array } | undefined;
    const damage = (lengthBytes: number, reason: string, final: boolean): DamagePiece => ({
      kind: 'damage',
      offset: suspect?.offset ?? window.offset,
      lengthBytes,
      reason,
      evidence:
        suspect?.evidence ?? window.peek(Math.min(window.available, EVIDENCE_BYTES)).slice(),
      final,
    });

    while (await window.fill(FRAME_HEADER_BYTES)) {
      const header = window.peek(FRAME_HEADER_BYTES);
      const payloadBytes = readU32(header, 0);
      const expected = readU32(header, 4);
      if (payloadBytes === 0 || payloadBytes > MAX_PAYLOAD_BYTES) {
        const reason = `a frame cannot be ${payloadBytes} bytes long; reading stops here`;
        yield damage(-1, suspect === undefined ? reason : UNTRUSTED, true);
        return;
      }
      const frameBytes = FRAME_HEADER_BYTES + payloadBytes;
      if (!(await window.fill(frameBytes))) break;

      const frame = window.peek(frameBytes);
      if (crc32c(frame, FRAME_HEADER_BYTES) === expected) {
        if (suspect !== undefined) {
          const skipped = window.offset - suspect.offset;
          yield damage(skipped, `a frame of ${skipped} bytes fails its checksum; left out`, false);
          suspect = undefined;
        }
        yield {
          kind: 'frame',
          offset: window.offset,
          payload: frame.subarray(FRAME_HEADER_BYTES),
        };
      } else if (suspect === undefined) {
        suspect = { offset: window.offset, evidence: frame.slice(0, EVIDENCE_BYTES) };
      } else {
        yield damage(-1, UNTRUSTED, true);
        return;
      }
      window.skip(frameBytes);
    }

    if (suspect === undefined && window.available === 0) return;
    const left = window.offset + window.available - (suspect?.offset ?? window.offset);
    const reason =
      suspect === undefined
        ? `cut off in the middle of a frame; the last ${left} bytes are dropped`
        : `a frame fails its checksum and none that is whole follows; the last ${left} bytes are dropped`;
    yield damage(left, reason, true);
  } finally {
    await window.close();
  }
}

const UNTRUSTED = 'a frame fails its checksum, and so does what follows it; reading stops here';

async function readFileHeader(window: ByteWindow): Promise<void> {
  const whole = await window.fill(FILE_HEADER_BYTES);
  const bytes = window.peek(Math.min(window.available, FILE_HEADER_BYTES));
  const evidence = bytes.length === 0 ? 'the file is empty' : escapeBytes(bytes, EVIDENCE_BYTES);
  const matches = MAGIC.every((byte, index) => bytes[index] === byte);
  if (!matches || !whole) {
    const cut = !whole && bytes.every((byte, index) => index >= 8 || byte === MAGIC[index]);
    throw new MmioError('damaged', cut ? 'the capture is cut off in its header' : 'not a capture', {
      evidence,
      hint: wasText(bytes)
        ? 'it went through a transfer that rewrites text; copy it again in binary mode'
        : undefined,
    });
  }
  const version = readU32(bytes, MAGIC.length);
  if (version !== FORMAT_VERSION) {
    throw new MmioError('damaged', `a capture of format version ${version}, which is not known`, {
      evidence,
      hint: `this program reads version ${FORMAT_VERSION}; a newer one may read it`,
    });
  }
  window.skip(FILE_HEADER_BYTES);
}

/** The name in the magic is there, but what surrounds it was rewritten. */
function wasText(bytes: Uint8Array): boolean {
  const text = String.fromCharCode(...bytes);
  return text.includes('MIO') && !MAGIC.every((byte, index) => bytes[index] === byte);
}
