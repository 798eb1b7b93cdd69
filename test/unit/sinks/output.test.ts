import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { OutputSet } from '../../../src/sinks/output-set.ts';
import { FileOutput, GzipOutput, StreamOutput } from '../../../src/sinks/output.ts';
import { MemoryOutput } from '../../support/memory-output.ts';

let dir = '';
let path = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'output-'));
  path = join(dir, 'out');
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dir, { recursive: true });
});

const bytes = (text: string) => Buffer.from(text);
const content = () => readFileSync(path, 'utf8');

/** What the system does with each write, in turn; when they are used up, it writes. */
async function systemDoes(...turns: readonly (number | 'ENOSPC' | 'EIO')[]): Promise<void> {
  const probe = await open(path, 'w');
  const prototype = Object.getPrototypeOf(probe) as FileHandle;
  await probe.close();
  // eslint-disable-next-line typescript/unbound-method -- called with its own `this` below
  const real = prototype.write as (...args: unknown[]) => Promise<{ bytesWritten: number }>;
  const left = [...turns];
  const fake = function (
    this: FileHandle,
    data: Uint8Array,
    from: number,
    _: undefined,
    at: number,
  ) {
    const turn = left.shift();
    if (typeof turn === 'string') {
      return Promise.reject(Object.assign(new Error(`${turn}: no luck`), { code: turn }));
    }
    return real.call(this, data, from, turn ?? data.length - from, at);
  };
  vi.spyOn(prototype, 'write').mockImplementation(fake as never);
}

describe('a file', () => {
  test('holds what was written, in order, also when nobody waits', async () => {
    const output = await FileOutput.open(path);
    for (let n = 0; n < 100; n++) void output.write(bytes(`${n}\n`));
    expect(await output.flush()).toBe(290);
    expect(content()).toBe(Array.from({ length: 100 }, (_, n) => `${n}\n`).join(''));
    await output.close();
  });

  test('is whole where the system takes only a part of each write', async () => {
    await systemDoes(3, 1, 2);
    const output = await FileOutput.open(path);
    void output.write(bytes('0123456789'));
    void output.write(bytes('abc'));
    expect(await output.flush()).toBe(13);
    expect(content()).toBe('0123456789abc');
    await output.close();
  });

  test('waits for room on a full disk, says so once, and goes on where it was', async () => {
    await systemDoes(4, 'ENOSPC', 'ENOSPC', 2);
    const said: (string | undefined)[] = [];
    const output = await FileOutput.open(path, { onStall: (reason) => said.push(reason) });
    await output.write(bytes('0123456789'));
    expect(said).toEqual([`${path}: ENOSPC: no luck`, undefined]);
    expect(content()).toBe('0123456789');
    await output.close();
  });

  test('fails for good on any other error, and so does all that follows', async () => {
    await systemDoes('EIO');
    const output = await FileOutput.open(path, { onStall: () => undefined });
    const failure = { code: 'io', message: `cannot write ${path}`, evidence: 'EIO: no luck' };
    await expect(output.write(bytes('a'))).rejects.toMatchObject(failure);
    await expect(output.write(bytes('b'))).rejects.toMatchObject(failure);
    await expect(output.flush()).rejects.toMatchObject(failure);
    await expect(output.close()).rejects.toMatchObject(failure);
  });

  test('that is resumed loses what is behind the place, and nothing before it', async () => {
    writeFileSync(path, 'known, not known');
    const output = await FileOutput.open(path, { resumeAt: 6 });
    await output.write(bytes(' and more'));
    expect(await output.flush()).toBe(15);
    expect(content()).toBe('known, and more');
    await output.close();
  });

  test('that is too short to be resumed is left alone', async () => {
    writeFileSync(path, 'short');
    await expect(FileOutput.open(path, { resumeAt: 6 })).rejects.toMatchObject({
      code: 'io',
      evidence: '5 bytes, of which 6 were known to be written',
    });
    expect(content()).toBe('short');
    const missing = FileOutput.open(join(dir, 'missing'), { resumeAt: 0 });
    await expect(missing).rejects.toMatchObject({ code: 'io' });
  });

  test('that is a device takes what it is given', async () => {
    const output = await FileOutput.open('/dev/null');
    await output.write(bytes('anything'));
    await expect(output.sync()).resolves.toBeUndefined();
    await output.close();
  });
});

describe('a compressed file', () => {
  test('can be cut after every flush: what was written so far is there', async () => {
    const output = new GzipOutput(await FileOutput.open(path));
    let written = '';
    const lengths: number[] = [];
    for (let n = 0; n < 20; n++) {
      // Small ones, and some that are larger than what is gathered.
      const piece = `${n} `.repeat(n % 5 === 4 ? 200_000 : 50);
      written += piece;
      void output.write(bytes(piece));
      lengths.push(await output.flush());
      expect(gunzipSync(readFileSync(path)).toString()).toBe(written);
    }
    await output.close();
    expect(gunzipSync(readFileSync(path)).toString()).toBe(written);
    const [cut = 0] = lengths.slice(2);
    truncateSync(path, cut);
    const resumed = new GzipOutput(await FileOutput.open(path, { resumeAt: cut }));
    const before = gunzipSync(readFileSync(path)).toString();
    await resumed.write(bytes('gone on'));
    await resumed.close();
    expect(gunzipSync(readFileSync(path)).toString()).toBe(`${before}gone on`);
  });

  test('gathers small pieces, which may be used again at once', async () => {
    const inner = new MemoryOutput();
    const output = new GzipOutput(inner);
    const piece = new Uint8Array(40);
    let plain = '';
    for (let n = 0; n < 20_000; n++) {
      const line = `R 4 0.${String(n).padStart(6, '0')} 1 0xfebc0010 0x80 0x0 0\n`;
      const { written } = new TextEncoder().encodeInto(line, piece);
      plain += line.slice(0, written);
      await output.write(piece.subarray(0, written));
    }
    await output.flush();
    expect(gunzipSync(inner.bytes()).toString()).toBe(plain);
    expect(inner.chunks.length).toBeLessThan(6);
    expect(inner.bytes().length).toBeLessThan(plain.length / 5);
  });

  test('tells the one who writes on that the disk has failed', async () => {
    await systemDoes('EIO');
    const output = new GzipOutput(await FileOutput.open(path));
    await output.write(bytes('a'));
    await expect(output.flush()).rejects.toMatchObject({ evidence: 'EIO: no luck' });
    await expect(output.write(bytes('b'))).rejects.toMatchObject({ evidence: 'EIO: no luck' });
    await expect(output.close()).rejects.toMatchObject({ evidence: 'EIO: no luck' });
  });
});

describe('several outputs', () => {
  test('are all opened, or none is touched', async () => {
    const old = join(dir, 'old.mmiotrace');
    writeFileSync(old, 'from yesterday');
    const paths = [old, join(dir, 'new.ndjson'), join(dir, 'nowhere', 'x.mmiocap')];
    await expect(OutputSet.open(paths)).rejects.toMatchObject({ code: 'io' });
    expect(readFileSync(old, 'utf8')).toBe('from yesterday');
    expect(() => readFileSync(join(dir, 'new.ndjson'))).toThrow(/ENOENT/);
    await (await OutputSet.open([old])).end();
    expect(readFileSync(old, 'utf8')).toBe('');
  });

  test('are not written into one file', async () => {
    const one = join(dir, 'x.ndjson');
    await expect(OutputSet.open([one, one])).rejects.toMatchObject({ code: 'usage' });
  });
});

test('a stream whose reader has gone is called by its name', async () => {
  const stream = new PassThrough();
  const output = new StreamOutput(stream, 'the browser');
  await output.write(bytes('one'));
  stream.destroy();
  await expect(output.write(bytes('two'))).rejects.toMatchObject({
    code: 'closed',
    message: 'cannot write to the browser',
    evidence: 'the program that reads it has ended',
  });
});
