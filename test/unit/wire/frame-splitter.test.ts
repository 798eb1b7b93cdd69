/** Frames of a connection: whole, in order, whatever the chunks; and nothing after what is not right. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { FRAME_HEADER_BYTES, sealFrame } from '../../../src/wire/frame.ts';
import { FrameSplitter } from '../../../src/wire/frame-splitter.ts';
import { cutAt } from '../../support/captures.ts';

const MAX = 4096;
const payloads = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 20 });

function frame(payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  bytes.set(payload, FRAME_HEADER_BYTES);
  sealFrame(bytes, 0, payload.length);
  return bytes;
}

/** What comes out, and whether it ended in a refusal. */
function split(chunks: readonly Uint8Array[], splitter = new FrameSplitter(MAX)) {
  const out: string[] = [];
  try {
    for (const chunk of chunks) {
      for (const payload of splitter.feed(chunk)) out.push(Buffer.from(payload).toString('hex'));
    }
    return { out, refused: undefined };
  } catch (error) {
    if (!(error instanceof MmioError)) throw error;
    return { out, refused: error.message };
  }
}

const hex = (all: readonly Uint8Array[]) => all.map((it) => Buffer.from(it).toString('hex'));

async function chunksOf(bytes: Buffer, cuts: readonly number[]): Promise<Uint8Array[]> {
  const chunks = [];
  const places = cuts.map((at) => Math.min(at, bytes.length));
  for await (const chunk of cutAt(bytes, ...places)) chunks.push(chunk);
  return chunks;
}

test('any frames in any chunks come out as they went in', async () => {
  await fc.assert(
    fc.asyncProperty(payloads, fc.array(fc.nat(6000)), async (all, cuts) => {
      const chunks = await chunksOf(Buffer.concat(all.map(frame)), cuts);
      expect(split(chunks)).toEqual({ out: hex(all), refused: undefined });
    }),
  );
});

test('after any flipped bit only what came before it is given', async () => {
  await fc.assert(
    fc.asyncProperty(payloads, fc.nat(), fc.nat(7), fc.array(fc.nat(6000)), async (...args) => {
      const [all, at, bit, cuts] = args;
      const bytes = Buffer.concat(all.map(frame));
      if (bytes.length === 0) return;
      const place = at % bytes.length;
      bytes.writeUInt8(bytes.readUInt8(place) ^ (1 << bit), place);
      const { out } = split(await chunksOf(bytes, cuts));
      let end = 0;
      const before = all.filter((it) => (end += FRAME_HEADER_BYTES + it.length) <= place);
      expect(out).toEqual(hex(before));
    }),
  );
});

test('rubbish is refused, or waited with; it never comes out', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 200 })), (chunks) => {
      expect(split(chunks).out).toEqual([]);
    }),
  );
});

test.each([0, MAX + 1, 0x7fff_ffff, 0xffff_ffff])(
  'a length of %i is refused before anything of it is kept',
  (length) => {
    const head = Buffer.alloc(FRAME_HEADER_BYTES);
    head.writeUInt32LE(length);
    const splitter = new FrameSplitter(MAX);
    expect(split([head], splitter).refused).toBe(`a frame cannot be ${length} bytes long here`);
  },
);

test('a long frame that comes byte by byte costs no more than what has come', () => {
  const splitter = new FrameSplitter(MAX);
  const whole = frame(new Uint8Array(MAX));
  for (let at = 0; at < 1000; at++) {
    expect(split([whole.subarray(at, at + 1)], splitter)).toEqual({ out: [], refused: undefined });
  }
  expect(splitter.pendingBytes).toBe(1000);
});

test('the limit may be raised between two frames of one chunk', () => {
  const splitter = new FrameSplitter(10);
  const small = Buffer.alloc(10, 1);
  const large = Buffer.alloc(1000, 2);
  const out: number[] = [];
  for (const payload of splitter.feed(Buffer.concat([frame(small), frame(large)]))) {
    out.push(payload.length);
    splitter.maxPayloadBytes = MAX;
  }
  expect(out).toEqual([10, 1000]);
});
