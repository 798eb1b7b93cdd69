import { MmioError } from '../base/errors.ts';
import { escapeBytes } from '../base/escape.ts';
import type { RecordingHeader } from '../model/events.ts';
import { isBatch, type Recording, type StreamItem } from '../model/stream.ts';
import { looksLike } from './mmiotrace/look-alike.ts';
import { MmiotraceReader } from './mmiotrace/reader.ts';

/** How much may be kept of what comes before the first line that has a time. */
const MAX_HEAD_BYTES = 4 * 1024 * 1024;
/** An item without text, roughly. */
const ITEM_BYTES = 512;

/**
 * Reads mmiotrace text, version 20070824 (Linux kernel/trace/trace_mmiotrace.c), of the kernel, of
 * ours, or of other tools: CRLF, spaces at the end and upper-case hex are taken.
 *
 * Session time 0 is the second of the first line with a time (`header.textBaseSec`), so that any
 * kernel's uptime stays an exact number of nanoseconds. A line that is not what it should be is a
 * `damage` event; one that means nothing to us is a `line` event. The stream can be read once.
 *
 * Throws MmioError `damaged` if the beginning holds no line of mmiotrace text at all.
 */
export async function openMmiotrace(chunks: AsyncIterable<Uint8Array>): Promise<Recording> {
  const reader = new MmiotraceReader(chunks);
  const rest = reader.items();
  const head: StreamItem[] = [];
  // The header holds the time base, so what stands before the first time is kept until that comes.
  // Only the last of these can be a batch: a batch has times.
  let held = 0;
  while (reader.baseSec < 0 && held < MAX_HEAD_BYTES) {
    const next = await rest.next();
    if (next.done === true) break;
    head.push(next.value);
    held += ITEM_BYTES + ('text' in next.value ? next.value.text.length : 0);
  }
  if (!reader.sawMmiotrace) {
    await rest.return();
    throw notMmiotrace(reader.head);
  }
  if (reader.baseSec < 0) reader.baseSec = 0;
  const header = headerOf(reader.baseSec);
  const { doubts } = reader;
  return { header, doubts, items: () => inOrder(head, rest, reader.baseSec) };
}

async function* inOrder(
  head: StreamItem[],
  rest: AsyncIterable<StreamItem>,
  baseSec: number,
): AsyncGenerator<StreamItem, void> {
  for (const item of head.splice(0)) yield rebased(item, baseSec);
  yield* rest;
}

/** A loss before there was a time base has the kernel's own time. */
function rebased(item: StreamItem, baseSec: number): StreamItem {
  if (isBatch(item) || item.kind !== 'loss') return item;
  return { ...item, timeNs: item.timeNs - baseSec * 1e9 };
}

function headerOf(textBaseSec: number): RecordingHeader {
  return {
    tool: 'mmiotrace 20070824',
    source: 'mmiotrace',
    startSec: 0,
    startNs: 0,
    textBaseSec,
    clock: 'kernel',
    qemuVersion: '',
    argv: [],
  };
}

function notMmiotrace(head: Uint8Array): MmioError {
  return new MmioError('damaged', `not mmiotrace text: this looks like ${looksLike(head)}`, {
    evidence: head.length === 0 ? undefined : escapeBytes(head, 80),
    hint: 'mmiotrace text begins with the line VERSION 20070824',
  });
}
