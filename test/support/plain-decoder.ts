import { escapeBytes } from '../../src/base/escape.ts';
import { parseBody, splitPrefix } from '../../src/sources/qemu-log/grammar.ts';
import { MAX_LINE_BYTES, QemuLogDecoder } from '../../src/sources/qemu-log/decoder.ts';

/** What both decoders make of a log, as plain data that can be compared. */
export type PlainItem = Readonly<Record<string, unknown>>;

/** The plain twin of the decoder: split into lines, each through the grammar. No chunks, no speed. */
export function decodePlainly(log: Uint8Array): PlainItem[] {
  const items: PlainItem[] = [];
  let start: number | undefined;
  let offset = 0;
  for (const [index, part, parts] of splitLines(log)) {
    const last = index === parts - 1;
    const lineOffset = offset;
    offset += part.length + 1;
    if (last && part.length === 0) break;
    const cr = !last && part.at(-1) === 0x0d;
    const bytes = cr ? part.subarray(0, -1) : part;
    let timeNs: number | null = null;
    const damage = (reason: string) =>
      items.push({ kind: 'damage', offset: lineOffset, reason, evidence: escapeBytes(bytes, 200) });
    if (part.length > MAX_LINE_BYTES) {
      damage(`a line of more than ${MAX_LINE_BYTES} bytes`);
      continue;
    }
    if (last) {
      damage('cut off in the middle of the line');
      continue;
    }
    if (bytes.length === 0) continue;
    const { stamp, rest } = splitPrefix(Buffer.from(bytes).toString('latin1'));
    if (stamp !== undefined) {
      const us = stamp.sec * 1e6 + stamp.usec;
      start ??= us;
      const ns = (us - start) * 1000;
      timeNs = Math.abs(ns) < 9e15 ? ns : null;
    }
    if (rest === undefined) {
      damage('a time stamp that is not whole');
      continue;
    }
    const parsed = parseBody(rest);
    if (parsed.kind === 'damaged') damage(parsed.reason);
    else if (parsed.kind === 'access') {
      const { target, ...access } = parsed;
      items.push({ ...access, target, timeNs, thread: stamp?.thread ?? 0 });
    } else if (parsed.kind === 'failed' && !parsed.write) {
      const { reason: _, ...access } = parsed;
      items.push({ ...access, kind: 'access', cpu: -1, timeNs, thread: stamp?.thread ?? 0 });
      items.push({ ...parsed, timeNs });
    } else if (parsed.kind !== 'other') items.push({ ...parsed, timeNs });
  }
  return items;
}

function* splitLines(log: Uint8Array): Generator<[number, Uint8Array, number]> {
  const ends: number[] = [];
  for (let i = 0; i < log.length; i++) if (log[i] === 0x0a) ends.push(i);
  ends.push(log.length);
  let from = 0;
  for (const [index, end] of ends.entries()) {
    yield [index, log.subarray(from, end), ends.length];
    from = end + 1;
  }
}

/** The real decoder over chunks, as the same plain data. */
export function decodeFast(chunks: Iterable<Uint8Array>, batchCapacity = 7): PlainItem[] {
  const decoder = new QemuLogDecoder({ batchCapacity });
  const items: PlainItem[] = [];
  const drain = () => {
    for (let item; (item = decoder.next()) !== undefined;) {
      if ('kind' in item) {
        if (item.kind === 'damage') {
          const { reason, evidence, position } = item;
          items.push({ kind: 'damage', offset: position.offset, reason, evidence });
        } else {
          items.push({ ...item, timeNs: Number.isNaN(item.timeNs) ? null : item.timeNs });
        }
        continue;
      }
      for (let row = 0; row < item.length; row++) {
        const timeNs = item.timeNs[row] ?? NaN;
        items.push({
          kind: 'access',
          write: item.op[row] === 1,
          target: decoder.targets[item.target[row] ?? -1],
          address: item.offset[row],
          valueLo: item.valueLo[row],
          valueHi: item.valueHi[row],
          width: item.width[row],
          cpu: item.cpu[row],
          timeNs: Number.isNaN(timeNs) ? null : timeNs,
          thread: item.thread[row],
        });
      }
    }
  };
  for (const chunk of chunks) {
    decoder.feed(chunk);
    drain();
  }
  decoder.finish();
  drain();
  return items;
}
