import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import { AccessBatch } from '../model/access-batch.ts';
import type { DamageEvent, RecordingHeader } from '../model/events.ts';
import { isBatch, type Recording, type StreamItem } from '../model/stream.ts';
import { FRAME_HEADER_BYTES } from '../wire/frame.ts';
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
  for await (const { item, timeNs } of decodePieces(pieces, decoder, true)) {
    if (isUnknown(item)) {
      const before = unknownFrames.get(item.field) ?? 0;
      unknownFrames.set(item.field, before + 1);
      if (before === 0) yield { kind: 'notice', timeNs, text: unknownFrameText(item) };
      continue;
    }
    if (!isHeader(item)) yield item;
  }
}

/** What a frame says, or what is wrong in its place. */
export interface PlacedItem {
  readonly item: StreamItem | HeaderItem | UnknownItem;
  /** Of the frame in the file, and behind it. */
  readonly from: number;
  readonly to: number;
  /** Its time, in ns; of what has none, that of what came before. */
  readonly timeNs: number;
  /** The item is a `damage` event, which is told of the file and not by it. */
  readonly isDamage: boolean;
}

/**
 * The items of a capture with where they stand, its first header among them; what is wrong comes as
 * damage events. Throws MmioError `damaged` if it does not begin as a capture.
 */
export function readPlaced(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<PlacedItem, void, undefined> {
  return decodePieces(readFrames(chunks), new PayloadDecoder(), false);
}

async function* decodePieces(
  pieces: AsyncIterable<Piece>,
  decoder: PayloadDecoder,
  hasHeader: boolean,
): AsyncGenerator<PlacedItem, void, undefined> {
  let timeNs = 0;
  let hadHeader = hasHeader;
  for await (const piece of pieces) {
    const from = piece.offset;
    if (piece.kind === 'damage') {
      yield { item: toEvent(piece, timeNs), from, to: from, timeNs, isDamage: true };
      continue;
    }
    const to = from + FRAME_HEADER_BYTES + piece.payload.length;
    const decoded = decode(decoder, piece, timeNs);
    const isSecond = hadHeader && isHeader(decoded.item);
    const found = isSecond ? leftOut(piece, timeNs, 'a second header') : decoded;
    const { item } = found;
    hadHeader ||= isHeader(item);
    if (!isUnknown(item) && !isHeader(item)) timeNs = timeOf(item, timeNs);
    yield { ...found, from, to, timeNs };
  }
}

function decode(
  decoder: PayloadDecoder,
  piece: FramePiece,
  timeNs: number,
): Pick<PlacedItem, 'item' | 'isDamage'> {
  try {
    return { item: decoder.decode(piece.payload), isDamage: false };
  } catch (error) {
    if (!(error instanceof MmioError)) throw error;
    const said = error.evidence === undefined ? '' : ` (${error.evidence})`;
    return leftOut(piece, timeNs, `${error.message}${said}`);
  }
}

function leftOut(
  { offset, payload }: FramePiece,
  timeNs: number,
  what: string,
): Pick<PlacedItem, 'item' | 'isDamage'> {
  const evidence = escapeBytes(payload.subarray(0, EVIDENCE_CHARS), EVIDENCE_CHARS);
  return { item: damageEvent(offset, timeNs, `${what}; left out`, evidence), isDamage: true };
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

function isUnknown(item: PlacedItem['item']): item is UnknownItem {
  return !(item instanceof AccessBatch) && item.kind === 'unknown';
}

function isHeader(item: PlacedItem['item']): item is HeaderItem {
  return !(item instanceof AccessBatch) && item.kind === 'header';
}
