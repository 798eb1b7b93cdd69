import { escapeBytes } from '../../base/escape.ts';
import { AccessBatch, NO_CPU, Op, Space } from '../../model/access-batch.ts';
import type { Counters } from '../../model/events.ts';
import type { StreamItem } from '../../model/stream.ts';
import { AccessLines } from './access-lines.ts';
import { GuestMemory } from './guest-memory.ts';
import { OwnWords } from './own-words.ts';
import { type Line, parseLine, type TimeFields } from './line-grammar.ts';
import { type LineBlock, LineSplitter, MAX_LINE_BYTES } from './line-splitter.ts';

const BATCH_ROWS = 4096;
const LF = 0x0a;
const MAX_EVIDENCE = 200;
/** How much of the file is kept to say what it looks like. */
const HEAD_BYTES = 512;

/** Holes of a file system, and worse; somebody may have put colours into a MARK. */
const NOT_TEXT = /[\x00-\x08\x0e-\x1a\x1c-\x1f]/;

/** Lines of mmiotrace text to batches and events. Single use. */
export class MmiotraceReader {
  readonly #chunks: AsyncIterable<Uint8Array>;
  readonly #batch = new AccessBatch(BATCH_ROWS);
  readonly #memory = new GuestMemory();
  readonly #accesses = new AccessLines(this.#batch, this.#memory);
  readonly #lines = new LineSplitter();
  readonly #decoder = new TextDecoder();
  readonly #ownWords = new OwnWords();
  /** Why the text is not complete, by its own words; known at its end. */
  readonly doubts: string[] = [];
  #head = new Uint8Array(0);
  #sawVersion = false;
  #sawMmiotrace = false;
  #lost = 0;
  #lossEvents = 0;
  #damagedLines = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** Whether any line so far was one that only mmiotrace text has. */
  get sawMmiotrace(): boolean {
    return this.#sawMmiotrace;
  }

  /** Second that is session time 0; -1 before a line with a time of its own. */
  get baseSec(): number {
    return this.#accesses.baseSec;
  }

  set baseSec(sec: number) {
    this.#accesses.baseSec = sec;
  }

  /** The first bytes of the file. */
  get head(): Uint8Array {
    return this.#head;
  }

  /** A batch is valid until the next item is asked for. The last item is an `end` event. */
  async *items(): AsyncGenerator<StreamItem, void> {
    for await (const chunk of this.#chunks) {
      this.#keepHead(chunk);
      for (const block of this.#lines.push(chunk)) yield* this.#block(block);
    }
    for (const block of this.#lines.finish()) yield* this.#block(block);
    if (this.#batch.length > 0) yield* this.#flush();
    this.doubts.push(...this.#ownWords.doubts(this.#accesses.reads + this.#accesses.writes));
    const complete = this.#lossEvents === 0 && this.#damagedLines === 0 && this.doubts.length === 0;
    yield { kind: 'end', timeNs: this.#now(), complete, counters: this.#counters() };
  }

  *#block({ bytes, start, end, offset, tooLong }: LineBlock): Generator<StreamItem> {
    if (tooLong) {
      const reason = `line is longer than ${MAX_LINE_BYTES} bytes`;
      yield* this.#damage(reason, offset, bytes.subarray(start, end));
      return;
    }
    let at = start;
    while (at < end) {
      at = this.#accesses.run(bytes, at, end);
      if (this.#batch.length === this.#batch.capacity) yield* this.#flush();
      else if (at < end) {
        const lf = bytes.indexOf(LF, at);
        const again = yield* this.#rareLine(bytes.subarray(at, lf), offset + at - start);
        if (!again) at = lf + 1;
      }
    }
  }

  /** A line that `AccessLines` did not take. True: it can now. */
  *#rareLine(bytes: Uint8Array, offset: number): Generator<StreamItem, boolean> {
    const text = this.#decoder.decode(bytes);
    if (text.trim() === '') return false;
    const line = parseLine(text);
    if (line.kind === 'fault') {
      yield* this.#damage(line.reason, offset, bytes);
      return false;
    }
    if (NOT_TEXT.test(text)) {
      yield* this.#damage('bytes that are no text', offset, bytes);
      return false;
    }
    if (line.kind !== 'other') this.#sawMmiotrace = true;
    // The kernel stamps its losses with 0, which says nothing about the clock.
    if ('sec' in line && line.kind !== 'loss' && this.baseSec < 0) this.baseSec = line.sec;
    if (line.kind === 'access') return yield* this.#letAccessesIn(bytes, offset);
    yield* this.#item(line, text);
    return false;
  }

  /** A good line that was refused: there was no time base yet, or no region for it. */
  *#letAccessesIn(bytes: Uint8Array, offset: number): Generator<StreamItem, boolean> {
    const line = Buffer.concat([bytes, Uint8Array.of(LF)]);
    if (this.#batch.length === this.#batch.capacity) yield* this.#flush();
    if (this.#accesses.run(line, 0, line.length) === line.length) return false;
    const region = this.#memory.announceEverywhere();
    if (region !== undefined) {
      yield* this.#flush();
      yield { kind: 'region', timeNs: this.#now(), region };
      return true;
    }
    yield* this.#damage('malformed R or W line', offset, bytes);
    return false;
  }

  *#item(line: Line, text: string): Generator<StreamItem> {
    switch (line.kind) {
      case 'unknown':
        yield* this.#unknownRow(line);
        return;
      case 'version':
        // Every output begins with one; a second belongs to a log that was appended.
        if (!this.#sawVersion) this.#sawVersion = true;
        else yield* this.#keptLine(text);
        return;
      case 'pcidev':
        yield* this.#flush();
        yield {
          kind: 'device',
          timeNs: this.#now(),
          device: this.#memory.addFunction(line.function),
        };
        return;
      case 'map': {
        yield* this.#flush();
        const timeNs = this.#stamp(line);
        const { mapId, phys, lengthBytes, virt } = line;
        const { region, mapping } = this.#memory.addMapping(mapId, phys, lengthBytes, virt);
        this.#accesses.forgetMapping();
        if (region !== undefined) yield { kind: 'region', timeNs, region };
        yield { kind: 'map', timeNs, mapping };
        return;
      }
      case 'unmap':
        yield* this.#flush();
        yield { kind: 'unmap', timeNs: this.#stamp(line), mapId: line.mapId };
        return;
      case 'mark':
        yield* this.#flush();
        this.#ownWords.mark(line.text);
        yield { kind: 'mark', timeNs: this.#stamp(line), text: line.text };
        return;
      case 'loss': {
        yield* this.#flush();
        this.#lost += line.count;
        this.#lossEvents++;
        // Its stamp is not the time at which it happened, so time does not go on from it.
        const timeNs = this.#sessionNs(line);
        yield { kind: 'loss', timeNs, count: line.count, durationNs: 0, reason: 'kernel' };
        return;
      }
      case 'other':
        yield* this.#keptLine(text);
        return;
      case 'access':
      case 'fault':
    }
  }

  *#unknownRow(line: Line & { readonly kind: 'unknown' }): Generator<StreamItem> {
    const window = this.#memory.window(line.mapId);
    const inside = line.phys >= window.start && line.phys < window.end;
    const timeNs = this.#stamp(line);
    const region = inside ? undefined : this.#memory.announceEverywhere();
    if (region !== undefined) {
      yield* this.#flush();
      yield { kind: 'region', timeNs, region };
    }
    const batch = this.#batch;
    if (batch.length === batch.capacity) yield* this.#flush();
    const row = batch.length++;
    this.#accesses.reads++;
    batch.timeNs[row] = timeNs;
    batch.op[row] = Op.unknown;
    batch.space[row] = Space.mmio;
    batch.width[row] = 0;
    batch.region[row] = inside ? window.region : this.#memory.everywhereId;
    batch.mapId[row] = line.mapId;
    batch.offset[row] = inside ? line.phys + window.toOffset : line.phys;
    batch.valueLo[row] = line.opcode;
    batch.valueHi[row] = 0;
    batch.cpu[row] = NO_CPU;
    batch.pcLo[row] = Number(line.pc & 0xffffffffn);
    batch.pcHi[row] = Number(line.pc >> 32n);
  }

  *#keptLine(text: string): Generator<StreamItem> {
    yield* this.#flush();
    yield { kind: 'line', timeNs: this.#now(), text: text.trimEnd() };
  }

  *#damage(reason: string, offset: number, bytes: Uint8Array): Generator<StreamItem> {
    yield* this.#flush();
    this.#damagedLines++;
    const evidence = escapeBytes(bytes, MAX_EVIDENCE);
    const position = { segment: 0, offset };
    yield { kind: 'damage', timeNs: this.#now(), position, reason, evidence };
  }

  *#flush(): Generator<StreamItem> {
    if (this.#batch.length === 0) return;
    yield this.#batch;
    this.#batch.length = 0;
  }

  /** Time of a line that has none: that of the line before. */
  #now(): number {
    return this.#accesses.timeNs;
  }

  #stamp(line: TimeFields): number {
    return (this.#accesses.timeNs = this.#sessionNs(line));
  }

  #sessionNs({ sec, usec }: TimeFields): number {
    // Without a base yet this is a loss; `rebased` in mmiotrace-file.ts corrects it.
    return (sec - Math.max(this.baseSec, 0)) * 1e9 + usec * 1000;
  }

  #keepHead(chunk: Uint8Array): void {
    const missing = HEAD_BYTES - this.#head.length;
    if (missing > 0) this.#head = Buffer.concat([this.#head, chunk.subarray(0, missing)]);
  }

  #counters(): Counters {
    return {
      reads: this.#accesses.reads,
      writes: this.#accesses.writes,
      lost: this.#lost,
      lossEvents: this.#lossEvents,
      damagedLines: this.#damagedLines,
      otherLines: {},
    };
  }
}
