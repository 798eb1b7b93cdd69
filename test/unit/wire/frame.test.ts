import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  FILE_HEADER_BYTES,
  FRAME_HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
  sealFrame,
  writeFileHeader,
} from '../../../src/wire/frame.ts';
import { readFrames } from '../../../src/wire/frame-reader.ts';
import { cutAt } from '../../support/captures.ts';

const FILE_HEADER = new Uint8Array(FILE_HEADER_BYTES);
writeFileHeader(FILE_HEADER);

function frame(payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  bytes.set(payload, FRAME_HEADER_BYTES);
  sealFrame(bytes, 0, payload.length);
  return bytes;
}

const fileOf = (...payloads: readonly (string | Uint8Array)[]): Buffer =>
  Buffer.concat([FILE_HEADER, ...payloads.map((payload) => frame(Buffer.from(payload)))]);

/** What a reader gives: text of a frame, or a damage piece. */
async function read(chunks: AsyncIterable<Uint8Array>): Promise<unknown[]> {
  const pieces = [];
  for await (const piece of readFrames(chunks)) {
    if (piece.kind === 'frame') pieces.push(Buffer.from(piece.payload).toString('latin1'));
    else pieces.push({ at: piece.offset, bytes: piece.lengthBytes, reason: piece.reason });
  }
  return pieces;
}

/** `first`, then whatever `next` makes, without end; counts what was taken. */
function endless(
  first: Uint8Array,
  next: () => Uint8Array,
): { chunks: AsyncIterable<Uint8Array>; taken: () => number; closed: () => boolean } {
  let taken = 0;
  let closed = false;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    try {
      yield first;
      for (;;) {
        const chunk = next();
        taken += chunk.length;
        yield chunk;
      }
    } finally {
      closed = true;
    }
  }
  return { chunks: chunks(), taken: () => taken, closed: () => closed };
}

describe('a file of frames', () => {
  it('is laid out as documented', () => {
    const [magic, version] = ['894d494f0d0a1a0a', '01000000'];
    const [length, crc, payload] = ['09000000', '839206e3', '313233343536373839'];
    expect(fileOf('123456789').toString('hex')).toBe(`${magic}${version}${length}${crc}${payload}`);
  });

  it('is read back whatever the chunks', async () => {
    const payloads = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(payloads, fc.array(fc.nat(2000)), async (frames, places) => {
        const file = fileOf(...frames);
        const inside = places.filter((place) => place <= file.length);
        const expected = frames.map((bytes) => Buffer.from(bytes).toString('latin1'));
        expect(await read(cutAt(file, ...inside))).toEqual(expected);
      }),
    );
  });

  it('is read back with the largest frame there can be', async () => {
    const largest = new Uint8Array(MAX_PAYLOAD_BYTES).fill(65);
    const pieces = await read(cutAt(fileOf('a', largest, 'b'), 100, 70_000, 1_000_000));
    expect(pieces.map((piece) => String(piece).length)).toEqual([1, MAX_PAYLOAD_BYTES, 1]);
  });

  it('takes no more memory than a frame or two, however long it is', async () => {
    const one = frame(new Uint8Array(1 << 20).fill(7));
    let left = 200;
    const { chunks } = endless(FILE_HEADER, () => (left-- > 0 ? one : frame(Buffer.from('stop'))));
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for await (const piece of readFrames(chunks)) {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
      if (piece.kind === 'frame' && piece.payload.length === 4) break;
    }
    expect(most).toBeLessThan(16 << 20);
  });

  it('lets go of its source when the reader stops early', async () => {
    const source = endless(fileOf('a', 'b'), () => frame(Buffer.from('more')));
    for await (const piece of readFrames(source.chunks)) if (piece.kind === 'frame') break;
    expect(source.closed()).toBe(true);
  });
});

describe('the beginning of a file', () => {
  const whole = fileOf('a');
  const altered = (at: number, ...bytes: number[]): Buffer => {
    const copy = Buffer.from(whole);
    copy.set(bytes, at);
    return copy;
  };

  const BINARY: unknown = expect.stringContaining('binary mode');

  it.each<[string, Buffer, string, unknown]>([
    ['of nothing', Buffer.alloc(0), 'the file is empty', undefined],
    ['cut off in the header', Buffer.from(whole.subarray(0, 10)), 'MIO', undefined],
    ['of something else', Buffer.from('VERSION 20070824\n'), 'VERSION', undefined],
    [
      'with CR LF made LF',
      Buffer.concat([whole.subarray(0, 4), whole.subarray(5)]),
      'MIO\\x0a',
      BINARY,
    ],
    ['without the high bits', altered(0, 0x09), '\\x09MIO', BINARY],
    [
      'taken for Latin-1 and made UTF-8',
      Buffer.from(whole.toString('latin1'), 'utf8'),
      '\\xc2\\x89MIO',
      BINARY,
    ],
    ['of another version', altered(8, 2), '\\x02', expect.stringContaining('newer')],
  ])('%s is refused, with its bytes', async (_what, bytes, evidence, hint) => {
    await expect(read(cutAt(bytes))).rejects.toMatchObject({
      name: 'MmioError',
      code: 'damaged',
      evidence: expect.stringContaining(evidence),
      hint,
    });
  });

  it('is enough to refuse endless garbage', async () => {
    const garbage = Buffer.alloc(1000, 'garbage ');
    const source = endless(garbage, () => garbage);
    await expect(read(source.chunks)).rejects.toMatchObject({ code: 'damaged' });
    expect(source.taken()).toBe(0);
    expect(source.closed()).toBe(true);
  });
});

describe('damage', () => {
  const file = fileOf('first', 'second', 'third');
  const second = FILE_HEADER_BYTES + FRAME_HEADER_BYTES + 5;
  const third = second + FRAME_HEADER_BYTES + 6;
  const flipped = (...places: number[]): Buffer => {
    const copy = Buffer.from(file);
    for (const place of places) copy[place]! ^= 0x10;
    return copy;
  };

  it('in one frame costs that frame only', async () => {
    expect(await read(cutAt(flipped(second + 10)))).toEqual([
      'first',
      { at: second, bytes: 14, reason: 'a frame of 14 bytes fails its checksum; left out' },
      'third',
    ]);
  });

  it('in two frames on end stops the reading, for the lengths may be wrong', async () => {
    expect(await read(cutAt(flipped(second + 10, third + 10)))).toEqual([
      'first',
      { at: second, bytes: -1, reason: expect.stringContaining('reading stops here') },
    ]);
  });

  it('in the last frame is reported though nothing follows it', async () => {
    expect(await read(cutAt(flipped(third + 10)))).toEqual([
      'first',
      'second',
      { at: third, bytes: 13, reason: expect.stringContaining('fails its checksum') },
    ]);
  });

  it('in a length never makes data of what follows', async () => {
    const pieces = await read(cutAt(flipped(second)));
    expect(pieces).toEqual(['first', { at: second, bytes: 27, reason: expect.any(String) }]);
  });

  it.each([
    ['absurd', 0xffff_ffff],
    ['just too large', MAX_PAYLOAD_BYTES + 1],
    ['zero', 0],
  ])('of a length that is %s stops the reading', async (_what, length) => {
    const copy = Buffer.from(file);
    copy.writeUInt32LE(length, second);
    expect(await read(cutAt(copy))).toEqual([
      'first',
      {
        at: second,
        bytes: -1,
        reason: `a frame cannot be ${length} bytes long; reading stops here`,
      },
    ]);
  });

  it('of the kind that a crash leaves, zeros to the end, is not taken for empty frames', async () => {
    expect(await read(cutAt(Buffer.concat([file, Buffer.alloc(4096)])))).toEqual([
      'first',
      'second',
      'third',
      { at: file.length, bytes: -1, reason: expect.stringContaining('cannot be 0 bytes') },
    ]);
  });

  it.each([
    ['zeros', () => Buffer.alloc(65536), 1],
    ['ones', () => Buffer.alloc(65536, 255), 1],
    ['frames of the largest size that fail their checksums', () => hollowFrame(), 2],
  ])('without end, of %s, ends the reading soon', async (_what, next, frames) => {
    const source = endless(file, next);
    const pieces = await read(source.chunks);
    expect(pieces).toHaveLength(4);
    expect(pieces[3]).toMatchObject({ at: file.length, bytes: -1 });
    expect(source.taken()).toBeLessThanOrEqual((frames + 1) * hollowFrame().length);
    expect(source.closed()).toBe(true);
  });
});

function hollowFrame(): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + MAX_PAYLOAD_BYTES, 65);
  bytes.writeUInt32LE(MAX_PAYLOAD_BYTES, 0);
  return bytes;
}
