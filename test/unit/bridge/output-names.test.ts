/** Addresses, tokens and the names of a collector's files. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseBridgeAddress, requireConfidential } from '../../../src/bridge/address.ts';
import { checkPattern, claimNames, fillPattern } from '../../../src/bridge/output-names.ts';
import { readToken, tokensEqual } from '../../../src/bridge/token.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-names-'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true });
});

describe('an address', () => {
  test.each([
    ['unix:/run/x.sock', { kind: 'unix', path: '/run/x.sock' }],
    ['unix:///run/x.sock', { kind: 'unix', path: '/run/x.sock' }],
    ['tcp://:9000', { kind: 'tcp', host: '127.0.0.1', port: 9000 }],
    ['tcp://', { kind: 'tcp', host: '127.0.0.1', port: 7420 }],
    ['tls://desk', { kind: 'tls', host: 'desk', port: 7420 }],
    ['tls://[fe80::1%eth0]:1', { kind: 'tls', host: 'fe80::1%eth0', port: 1 }],
  ])('%s', (text, parts) => {
    expect(parseBridgeAddress(text)).toMatchObject(parts);
  });

  test.each(['http://desk', 'tcp://desk:70000', 'tcp://de sk/x', 'unix:', 'tls://a:b:1', 'desk'])(
    '%s is none',
    (text) => {
      expect(() => parseBridgeAddress(text)).toThrow(/is no address of a collector/);
    },
  );

  test.each(['tcp://0.0.0.0', 'tcp://desk', 'tcp://[::]:7420', 'tcp://127.0.0.1.example.org'])(
    '%s is off this machine, and needs TLS or a word',
    (text) => {
      const address = parseBridgeAddress(text);
      expect(() => requireConfidential(address, false)).toThrow(/over the network unencrypted/);
      expect(() => requireConfidential(address, true)).not.toThrow();
    },
  );

  test.each(['tcp://localhost', 'tcp://127.0.0.2', 'tcp://[::1]', 'tls://0.0.0.0', 'unix:x'])(
    '%s needs none',
    (text) => {
      expect(() => requireConfidential(parseBridgeAddress(text), false)).not.toThrow();
    },
  );
});

describe('a token', () => {
  test('comes from the file, or else from the environment', () => {
    writeFileSync(join(dir, 'token'), 'from the file, 16\n');
    vi.stubEnv('MMIOBRIDGE_TOKEN', 'from the environment');
    expect(readToken(join(dir, 'token'))).toBe('from the file, 16');
    expect(readToken(undefined)).toBe('from the environment');
  });

  test.each([
    ['', 'a token is needed on every network connection'],
    ['short', 'the token is too short or too long'],
  ])('that is %j is refused', (token, words) => {
    vi.stubEnv('MMIOBRIDGE_TOKEN', token);
    expect(() => readToken(undefined)).toThrow(words);
  });

  test('is equal to itself alone', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        expect(tokensEqual(a, a)).toBe(true);
        expect(tokensEqual(a, b)).toBe(a === b);
      }),
    );
  });
});

describe('a pattern', () => {
  const facts = { host: 'lab', device: 'gpu', time: '20261123T101500', session: 's' };

  test('has words that are known', () => {
    expect(fillPattern('a/{host}-{device}-{time}.txt', facts)).toBe(
      'a/lab-gpu-20261123T101500.txt',
    );
    expect(() => checkPattern('{host}-{when}.txt')).toThrow('what is {when}?');
  });

  test('never leads out of its folder, whatever a peer is called', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (host) => {
        const path = fillPattern('dir/{host}.txt', { ...facts, host });
        expect(path).toMatch(/^dir\/[A-Za-z0-9_-][A-Za-z0-9._-]*\.txt$/);
      }),
    );
    expect(fillPattern('dir/{host}', { ...facts, host: '..' })).toBe('dir/_');
  });

  test('never takes a name that is there: all outputs get the same number', async () => {
    writeFileSync(join(dir, 'gpu.txt.gz'), 'older');
    writeFileSync(join(dir, 'gpu-2.mmiocap'), 'older');
    const patterns = ['{device}.mmiocap', '{device}.txt.gz'].map((name) => join(dir, name));
    const names = await claimNames(patterns, facts);
    expect(names).toEqual([join(dir, 'gpu-3.mmiocap'), join(dir, 'gpu-3.txt.gz')]);
    const there = ['gpu-2.mmiocap', 'gpu-3.mmiocap', 'gpu-3.txt.gz', 'gpu.txt.gz'];
    expect(readdirSync(dir).toSorted()).toEqual(there);
  });
});
