import { MmioError, messageOf } from '../base/errors.ts';
import { FRAME_HEADER_BYTES, sealFrame } from './frame.ts';
import { v1 } from './generated/mmiobridge.ts';
import type { mmiobridge } from './generated/types.ts';

/** Raised when one side could misunderstand the other. */
export const BRIDGE_VERSION = 1;

/** What no message between sender and collector comes near. */
export const MAX_MESSAGE_BYTES = 1 << 20;

/** The tag of `Frame.bridge`: field 16, length-delimited. */
const TAG = [0x82, 0x01] as const;

export interface Hello {
  readonly kind: 'hello';
  readonly version: number;
  readonly tool: string;
  readonly token: string;
  readonly recording: string;
  readonly sender: string;
  readonly captureOffset: number;
  readonly host: string;
  readonly session: string;
  readonly devices: readonly string[];
}

export interface Welcome {
  readonly kind: 'welcome';
  readonly version: number;
  readonly tool: string;
  readonly captureOffset: number;
  readonly windowBytes: number;
  readonly finished: boolean;
}

/** What goes between sender and collector beside the frames; proto/mmiobridge.proto says of each. */
export type BridgeMessage =
  | Hello
  | Welcome
  | { readonly kind: 'refusal'; readonly reason: string }
  | { readonly kind: 'sync'; readonly captureOffset: number; readonly kept: readonly number[] }
  | { readonly kind: 'acknowledgement'; readonly captureOffset: number }
  | { readonly kind: 'finish'; readonly captureOffset: number }
  | { readonly kind: 'finished' }
  | { readonly kind: 'heartbeat' }
  | { readonly kind: 'request'; readonly id: number; readonly json: string }
  | { readonly kind: 'reply'; readonly id: number; readonly ok: boolean; readonly text: string }
  | { readonly kind: 'stall'; readonly reason: string };

/** The whole frame. */
export function encodeBridgeMessage({ kind, ...fields }: BridgeMessage): Uint8Array {
  const body = { [kind]: fields } as mmiobridge.v1.BridgeMessage.$Properties;
  const payload = v1.Frame.encode({ bridge: body }).finish();
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  frame.set(payload, FRAME_HEADER_BYTES);
  sealFrame(frame, 0, payload.length);
  return frame;
}

export function isBridgeMessage(payload: Uint8Array): boolean {
  return payload[0] === TAG[0] && payload[1] === TAG[1];
}

/** Throws MmioError `protocol` where it is none, or of a kind that is not known. */
export function decodeBridgeMessage(payload: Uint8Array): BridgeMessage {
  if (!isBridgeMessage(payload) || payload.length > MAX_MESSAGE_BYTES) {
    throw new MmioError('protocol', 'not a message of the bridge');
  }
  let body: mmiobridge.v1.BridgeMessage.$Properties | null | undefined;
  try {
    body = v1.Frame.decode(payload).bridge;
  } catch (error) {
    const evidence = messageOf(error);
    throw new MmioError('protocol', 'a message is not valid protobuf', { evidence, cause: error });
  }
  const message = body && toMessage(body);
  if (message === undefined || message === null) {
    throw new MmioError('protocol', 'a message of a kind that is not known');
  }
  return message;
}

function toMessage(body: mmiobridge.v1.BridgeMessage.$Properties): BridgeMessage | undefined {
  if (body.hello) {
    const { version, tool, token, recording, sender, captureOffset, host, session, devices } =
      body.hello;
    return {
      kind: 'hello',
      version: version ?? 0,
      tool: tool ?? '',
      token: token ?? '',
      recording: recording ?? '',
      sender: sender ?? '',
      captureOffset: byteCount(captureOffset),
      host: host ?? '',
      session: session ?? '',
      devices: devices ?? [],
    };
  }
  if (body.welcome) {
    const { version, tool, captureOffset, windowBytes, finished } = body.welcome;
    return {
      kind: 'welcome',
      version: version ?? 0,
      tool: tool ?? '',
      captureOffset: byteCount(captureOffset),
      windowBytes: byteCount(windowBytes),
      finished: finished ?? false,
    };
  }
  if (body.refusal) return { kind: 'refusal', reason: body.refusal.reason ?? '' };
  if (body.sync) {
    const { captureOffset, kept } = body.sync;
    return {
      kind: 'sync',
      captureOffset: byteCount(captureOffset),
      kept: (kept ?? []).map(byteCount),
    };
  }
  if (body.acknowledgement) {
    return {
      kind: 'acknowledgement',
      captureOffset: byteCount(body.acknowledgement.captureOffset),
    };
  }
  if (body.finish) return { kind: 'finish', captureOffset: byteCount(body.finish.captureOffset) };
  if (body.finished) return { kind: 'finished' };
  if (body.heartbeat) return { kind: 'heartbeat' };
  if (body.request) {
    return { kind: 'request', id: body.request.id ?? 0, json: body.request.json ?? '' };
  }
  if (body.reply) {
    const { id, ok, text } = body.reply;
    return { kind: 'reply', id: id ?? 0, ok: ok ?? false, text: text ?? '' };
  }
  if (body.stall) return { kind: 'stall', reason: body.stall.reason ?? '' };
  return undefined;
}

/** Throws MmioError `protocol` for what is no number of bytes. */
function byteCount(value: number | null | undefined): number {
  const bytes = value ?? 0;
  if (Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
  throw new MmioError('protocol', `${bytes} is no offset in a recording`);
}
