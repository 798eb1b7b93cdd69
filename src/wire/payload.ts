import { messageOf, MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import type { RecordingHeader } from '../model/events.ts';
import type { StreamItem } from '../model/stream.ts';
import { MAX_MAPPINGS } from '../model/tables.ts';
import { ColumnDecoder } from './column-decoder.ts';
import { v1 } from './generated/mmiobridge.ts';
import type { FrameMessage } from './messages.ts';
import { EVENT_FIELDS, messageToEvent, messageToHeader } from './read-messages.ts';

/** What no event comes near. Without it, a frame of nothing but empty lists would fill the memory. */
export const MAX_EVENT_BYTES = 1 << 20;

const ACCESS_BATCH = 2;

export interface HeaderItem {
  readonly kind: 'header';
  readonly header: RecordingHeader;
}

/** A frame of a kind that this version does not know: a newer one wrote it. */
export interface UnknownItem {
  readonly kind: 'unknown';
  /** Its field number in `Frame`. */
  readonly field: number;
}

/** Numbers of all fields of `Frame`, as the encoder writes them. */
const KNOWN_FIELDS = new Set(
  ['header', 'accessBatch', 'bridge', ...EVENT_FIELDS].map((name) =>
    fieldOf(v1.Frame.encode({ [name]: {} }).finish()),
  ),
);

/** Reads the payloads of frames. A batch that it returns is overwritten by the next. */
export class PayloadDecoder {
  readonly #columns = new ColumnDecoder();
  readonly #mapIds = new Set<number>();

  /** Throws MmioError `damaged` if the payload is not exactly one field of `Frame`. */
  decode(payload: Uint8Array): StreamItem | HeaderItem | UnknownItem {
    const field = fieldOf(payload);
    if (!KNOWN_FIELDS.has(field)) return { kind: 'unknown', field };
    if (field !== ACCESS_BATCH && payload.length > MAX_EVENT_BYTES) {
      throw new MmioError('damaged', `an event of ${payload.length} bytes`);
    }
    const message = decodeFrame(payload);
    if (message.accessBatch) return this.#columns.decode(message.accessBatch);
    if (message.header) return { kind: 'header', header: messageToHeader(message.header) };
    if (message.bridge) throw new MmioError('damaged', 'a message of the bridge in a recording');
    const event = messageToEvent(message);
    if (event === undefined) throw notAFrame(payload);
    if (event.kind === 'map') this.#boundMappings(event.mapping.mapId);
    return event;
  }

  #boundMappings(mapId: number): void {
    if (this.#mapIds.size < MAX_MAPPINGS) this.#mapIds.add(mapId);
    else if (!this.#mapIds.has(mapId)) {
      throw new MmioError('damaged', `more than ${MAX_MAPPINGS} mappings`);
    }
  }
}

/** What is said of frames of an unknown kind, in their place. */
export function unknownFrameText({ field }: UnknownItem): string {
  return `frames of a kind that this version does not know (field ${field}) are left out from here on: a newer mmiobridge wrote them`;
}

/** The number of the one length-delimited field that the payload must consist of. */
function fieldOf(payload: Uint8Array): number {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 35 && at < payload.length; shift += 7) {
      const byte = payload[at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw notAFrame(payload);
  };
  const tag = varint();
  const length = varint();
  if (tag % 8 !== 2 || at + length !== payload.length) throw notAFrame(payload);
  return Math.floor(tag / 8);
}

function decodeFrame(payload: Uint8Array): FrameMessage {
  try {
    return v1.Frame.decode(payload);
  } catch (error) {
    const evidence = messageOf(error);
    throw new MmioError('damaged', 'a frame is not valid protobuf', { evidence, cause: error });
  }
}

function notAFrame(payload: Uint8Array): MmioError {
  return new MmioError('damaged', 'a frame has something other than one message in it', {
    evidence: escapeBytes(payload.subarray(0, 50), 200),
  });
}
