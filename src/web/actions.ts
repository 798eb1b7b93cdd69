/** What keys and buttons do. */
import type { Span } from '../analysis/span.ts';
import { count as total, counted } from '../base/format.ts';
import { authorized } from './address.ts';
import { ask } from './connection.ts';
import { LIST } from './shown.ts';
import * as state from './state.ts';

/** Runs it, and says what went wrong. */
export async function attempt(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    state.say(error instanceof Error ? error.message : String(error), true);
  }
}

export function addMark(text: string): Promise<void> {
  return attempt(async () => {
    await ask({ addMark: { text } });
    state.say(`marked: ${text}`);
  });
}

export function copyLines(first: number, count: number): Promise<void> {
  return attempt(async () => {
    const { lines } = await ask({ lines: { slot: LIST, first, count } });
    await navigator.clipboard.writeText(lines ?? '');
    const copied = (lines ?? '').split('\n').length - 1;
    const what = `${counted(copied, 'line')} of mmiotrace text`;
    if (copied >= count) state.say(`copied ${what}`);
    else state.say(`copied the first ${what} only, of ${total(count)}: download the rest`, true);
  });
}

export type Format = 'mmiotrace' | 'ndjson' | 'capture';

export function download(format: Format, span: Span | undefined): Promise<void> {
  return attempt(async () => {
    const query = new URLSearchParams({ format, recording: state.chosen.peek() ?? '' });
    if (span !== undefined) {
      query.set('from', String(span.fromNs));
      query.set('to', String(span.toNs));
    }
    state.say('preparing the download');
    const response = await fetch(`download?${query.toString()}`, authorized());
    if (!response.ok) throw new Error(`the download failed: ${await response.text()}`);
    const name = /filename="([^"]+)"/.exec(response.headers.get('Content-Disposition') ?? '')?.[1];
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await response.blob());
    link.download = name ?? 'recording';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    state.say(`downloaded ${link.download}`);
  });
}

export function setSpan(span: Span | undefined): void {
  state.span.value = span;
}

/** The timeline shows the span, or all again. */
export function toggleZoom(): void {
  state.zoom.value = state.zoom.peek() === undefined ? state.span.peek() : undefined;
}

export function clearAll(): void {
  state.span.value = undefined;
  state.zoom.value = undefined;
}

/** The marks before and behind a moment make the span; at the ends, the recording's. */
export function spanBetweenMarks(aroundNs: number): void {
  const times = state.marks.peek().map(({ timeNs }) => timeNs);
  const fromNs = times.findLast((time) => time <= aroundNs) ?? 0;
  const toNs = times.find((time) => time > aroundNs) ?? state.lastTimeNs.peek() + 1;
  setSpan({ fromNs, toNs });
}

/** From the mark before or behind where the span begins, to the one after it. */
export function jumpToMark(direction: 1 | -1): void {
  const times = state.marks.peek().map(({ timeNs }) => timeNs);
  if (times.length === 0) {
    state.say('there are no marks');
    return;
  }
  const here = state.span.peek()?.fromNs ?? (direction === 1 ? -1 : Infinity);
  const next =
    direction === 1 ? times.find((time) => time > here) : times.findLast((time) => time < here);
  if (next === undefined)
    state.say(direction === 1 ? 'that was the last mark' : 'that was the first mark');
  else spanBetweenMarks(next);
}
