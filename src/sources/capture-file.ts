import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import { AccessBatch } from '../model/access-batch.ts';
import type { DamageEvent, RecordingHeader } from '../model/events.ts';
import { isBatch, type Recording, type StreamItem } from '../model/stream.ts';
import { type DamagePiece, type FramePiece, readFrames } from '../wire/frame-reader.ts';
import {
  type HeaderItem,
  PayloadDecoder,
  type UnknownItem,
  unknownFrameText,
} from '../wire/payload.ts';

/** The most that a damage event shows of what was damaged. */
const EVIDENCE_CHARS = 200;

/**
 * Reads a capture (docs/formats.md) from chunks of any size; one frame at a time is in memory. What
 * is wrong in it comes as damage events, whose position is the byte in the file and whose time is
 * that of the item before; an `end` event is there only if the recording was ended. The first frame
 * of each kind that is not known becomes a notice; frames of such kinds are counted.
 *
 * Throws MmioError `damaged` if the chunks are no capture, or their first frame is not whole. The
 * stream can be read once: it and the chunks are let go when `items()` is done with or broken off.
 */
export async function openCapture(chunks: AsyncIterable<Uint8Array>): Promise<Recording> {
  const pieces = readFrames(chunks);
  try {
    const decoder = new PayloadDecoder();
    const header = readHeader(decoder, await pieces.next());
    const unknownFrames = new Map<number, number>();
    let taken = false;
    return {
      header,
      unknownFrames,
      items: () => {
        if (taken) throw new MmioError('usage', 'a capture can be read only once');
        taken = true;
        return readItems(pieces, decoder, unknownFrames);
      },
    };
  } catch (error) {
    await pieces.return();
    throw error;
  }
}

type Piece = FramePiece | DamagePiece;

function readHeader(decoder: PayloadDecoder, first: IteratorResult<Piece, void>): RecordingHeader {
  const hint = 'nothing can be said of the accesses without it';
  const piece = first.done === true ? undefined : first.value;
  if (piece?.kind !== 'frame') {
    const evidence = piece?.reason ?? 'it ends there';
    throw new MmioError('damaged', 'the header of the capture is not whole', { evidence, hint });
  }
  const item = decoder.decode(piece.payload);
  if (!isHeader(item)) {
    throw new MmioError('damaged', 'the capture does not begin with a header', { hint });
  }
  return item.header;
}

async function* readItems(
  pieces: AsyncGenerator<Piece, void, undefined>,
  decoder: PayloadDecoder,
  unknownFrames: Map<number, number>,
): AsyncGenerator<StreamItem, void, undefined> {
  let timeNs = 0;
  for await (const piece of pieces) {
    const item = piece.kind === 'damage' ? toEvent(piece, timeNs) : decode(decoder, piece, timeNs);
    if (isUnknown(item)) {
      const before = unknownFrames.get(item.field) ?? 0;
      unknownFrames.set(item.field, before + 1);
      if (before === 0) yield { kind: 'notice', timeNs, text: unknownFrameText(item) };
      continue;
    }
    timeNs = timeOf(item, timeNs);
    yield item;
  }
}

function decode(
  decoder: PayloadDecoder,
  piece: FramePiece,
  timeNs: number,
): StreamItem | UnknownItem {
  const { offset, payload } = piece;
  const evidence = (): string => escapeBytes(payload.subarray(0, EVIDENCE_CHARS), EVIDENCE_CHARS);
  try {
    const item = decoder.decode(payload);
    if (!isHeader(item)) return item;
    return damageEvent(offset, timeNs, 'a second header; left out', evidence());
  } catch (error) {
    if (!(error instanceof MmioError)) throw error;
    const said = error.evidence === undefined ? '' : ` (${error.evidence})`;
    return damageEvent(offset, timeNs, `${error.message}${said}; left out`, evidence());
  }
}

function toEvent({ offset, reason, evidence }: DamagePiece, timeNs: number): DamageEvent {
  return damageEvent(offset, timeNs, reason, escapeBytes(evidence, EVIDENCE_CHARS));
}

function damageEvent(offset: number, timeNs: number, what: string, evidence: string): DamageEvent {
  const reason = `capture: ${what}`;
  return { kind: 'damage', timeNs, position: { segment: 0, offset }, reason, evidence };
}

function timeOf(item: StreamItem, before: number): number {
  if (!isBatch(item)) return item.timeNs;
  return item.length === 0 ? before : (item.timeNs[item.length - 1] ?? before);
}

function isUnknown(item: StreamItem | UnknownItem): item is UnknownItem {
  return !(item instanceof AccessBatch) && item.kind === 'unknown';
}

function isHeader(item: StreamItem | HeaderItem | UnknownItem): item is HeaderItem {
  return !(item instanceof AccessBatch) && item.kind === 'header';
}
