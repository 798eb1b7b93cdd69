import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseDuration } from '../../../src/lab/language/duration.ts';
import { splitWords } from '../../../src/lab/language/words.ts';
import { markText, parseMarkLine } from '../../../src/lab/machine/guest-marks.ts';
import { keysOfCharacter, parseChord, untypable } from '../../../src/lab/machine/keys.ts';
import { imagePaths } from '../../../src/lab/machine/disk-images.ts';
import { difference, parsePpm, readPng, writePng } from '../../../src/lab/machine/picture.ts';
import { SerialPort } from '../../../src/lab/machine/serial-port.ts';
import { junitXml } from '../../../src/lab/run/junit.ts';
import type { Manifest, StepReport } from '../../../src/lab/run/manifest.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lab-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test.each([
  ['500ms', 500],
  ['1.5s', 1500],
  ['1h2m3s', 3_723_000],
  ['5', undefined],
  ['', undefined],
  ['1d', undefined],
  ['-1s', undefined],
  ['9999h', undefined],
])('%s is so many milliseconds: %s', (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test('words come back from their quoted form, whatever is in them', () => {
  const word = fc.string({ minLength: 1, maxLength: 12 }).filter((text) => !text.includes("'"));
  fc.assert(
    fc.property(fc.array(word), (words) => {
      expect(splitWords(words.map((text) => `'${text}'`).join(' '))).toEqual(words);
    }),
  );
});

describe('keys', () => {
  test('of every printable character of ASCII', () => {
    const ascii = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at)).join('');
    expect(untypable(`${ascii}\n\t`)).toBeUndefined();
    expect(untypable('aé')).toBe('é');
    expect(keysOfCharacter('?')).toEqual(['shift', 'slash']);
    expect(keysOfCharacter('A')).toEqual(['shift', 'a']);
    expect(keysOfCharacter('@')).toEqual(['shift', '2']);
  });

  test.each([
    ['ctrl-alt-delete', ['ctrl', 'alt', 'delete']],
    ['Enter', ['ret']],
    ['f12', ['f12']],
    ['win+r', ['meta_l', 'r']],
    ['f25', undefined],
    ['', undefined],
  ])('%s', (text, wanted) => {
    expect(parseChord(text)).toEqual(wanted);
  });
});

describe('pictures', () => {
  const rgb = Uint8Array.from({ length: 3 * 8 * 4 }, (_, at) => (at * 11) % 256);
  const ppm = Buffer.concat([Buffer.from('P6\n8 4\n255\n'), rgb]);

  test("are QEMU's PPM, and PNG on disk", async () => {
    const picture = parsePpm(ppm);
    expect(picture).toMatchObject({ width: 8, height: 4 });
    await writePng(picture, join(dir, 'a.png'));
    expect(difference(picture, await readPng(join(dir, 'a.png')))).toBe(0);
  });

  test('differ by the part of their pixels that does, in the area that is looked at', () => {
    const a = parsePpm(ppm);
    const changed = Uint8Array.from(rgb);
    changed[0] = (changed[0] ?? 0) ^ 0x80;
    const b = { ...a, rgb: changed };
    expect(difference(a, b)).toBe(1 / 32);
    expect(difference(a, b, { x: 1, y: 0, width: 7, height: 4 })).toBe(0);
    expect(difference(a, { ...a, width: 4, height: 8 })).toBe(1);
  });

  test.each([
    ['cut', ppm.subarray(0, 50)],
    ['nothing', Buffer.alloc(0)],
    ['huge', Buffer.from('P6\n99999 99999\n255\n')],
    ['another format', Buffer.from('P5\n1 1\n255\n\0')],
  ])('that cannot be read are refused: %s', async (_, bytes) => {
    expect(() => parsePpm(bytes)).toThrow("QEMU's picture of the screen cannot be read");
    writeFileSync(join(dir, 'x.png'), bytes);
    await expect(readPng(join(dir, 'x.png'))).rejects.toThrow('is no PNG picture');
  });
});

describe('a serial port', () => {
  test('is matched in what no match has seen, also where a character comes in two halves', () => {
    const path = join(dir, 'log');
    const euro = Buffer.from('€');
    writeFileSync(path, Buffer.concat([Buffer.from('boot\r\nlogin: '), euro.subarray(0, 1)]));
    const port = new SerialPort('console', path, undefined);
    expect(port.match(/login: /)).toBe('login: ');
    expect(port.match(/login: /)).toBeUndefined();
    appendFileSync(path, euro.subarray(1));
    expect(port.match(/€/)).toBe('€');
    appendFileSync(path, 'a\nb\r\nc');
    expect(port.takeLines()).toEqual(['a', 'b']);
    appendFileSync(path, 'd\n');
    expect(port.takeLines()).toEqual(['cd']);
    expect(port.tail()).toContain('  cd');
    port.close();
  });

  test('of megabytes costs no more memory than its end', () => {
    const path = join(dir, 'log');
    writeFileSync(path, 'x'.repeat(5 * 2 ** 20));
    const port = new SerialPort('console', path, undefined);
    expect(port.match(/y/)).toBeUndefined();
    appendFileSync(path, 'y');
    expect(port.match(/y/)).toBe('y');
    port.close();
  });

  test('that is not there is said', () => {
    const port = new SerialPort('console', join(dir, 'none'), undefined);
    expect(() => port.match(/x/)).toThrow('cannot read the serial port console');
    expect(port.tail()).toBe('');
  });
});

test.each([
  ['1732773600.25 loaded', 'guest: loaded (guest clock 1732773600.250000)'],
  ['1732773600 loaded\r', 'guest: loaded (guest clock 1732773600.000000)'],
  ['just text', 'guest: just text'],
  ['\x1b[31mred\x07', 'guest: [31mred'],
])('a line of the guest becomes a mark: %j', (line, text) => {
  const mark = parseMarkLine(line);
  expect(mark && markText(mark)).toBe(text);
});

test('a line with nothing in it is no mark', () => {
  expect(parseMarkLine(' \r\x00')).toBeUndefined();
});

test('files that a command line names are found', () => {
  const argv =
    'qemu-kvm -hda a.img -drive file=b.qcow2,if=virtio -blockdev driver=file,node-name=n,filename=c -kernel vmlinuz -m 1G -device e1000,romfile=rom d.iso';
  expect(imagePaths(argv.split(' '))).toEqual(['a.img', 'b.qcow2', 'c', 'vmlinuz', 'rom', 'd.iso']);
});

test('JUnit XML has each step, and nothing that XML cannot have', () => {
  const step = (more: Partial<StepReport>): StepReport => ({
    number: 1,
    name: 'a <step> & "more"',
    kind: 'wait',
    at: 'x.yaml:3',
    result: 'passed',
    started: null,
    seconds: 1.5,
    limitSeconds: 10,
    detail: null,
    failure: null,
    files: [],
    place: null,
    accesses: null,
    ...more,
  });
  const failure = { code: 'timeout', message: 'no \x1b[31m', evidence: 'a\nb\0', hint: null };
  const manifest = {
    result: 'failed',
    reason: 'x',
    seconds: 3,
    started: '2026-11-28T00:00:00.000Z',
    scenario: { name: 'run' },
    steps: [step({}), step({ result: 'failed', failure }), step({ result: 'skipped' })],
    recording: null,
  } as unknown as Manifest;
  const xml = junitXml(manifest);
  expect(xml).toContain('tests="4" failures="1" skipped="2"');
  expect(xml).toContain('name="a &lt;step&gt; &amp; &quot;more&quot;" time="1.500"/>');
  expect(xml).toContain(
    '<failure type="timeout" message="no \ufffd[31m">no \ufffd[31m&#10;a&#10;b\ufffd</failure>',
  );
  expect(xml).toContain('<skipped/>');
});
