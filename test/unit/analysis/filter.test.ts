import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileFilter } from '../../../src/analysis/filter/compile.ts';
import { FilterError, parseFilter } from '../../../src/analysis/filter/parse.ts';
import { batch, read, twoDevices, write } from '../../support/recorded.ts';

const ROWS = batch(
  read(1_000, 0x8, 0x80080783),
  write(2_000_000, 0x400, 0xff, { cpu: 1 }),
  write(3_000_000_000, 0x10, 0x1, { region: 1, width: 2 }),
  read(4_000_000_000, 0x0, 0xdeadbeef, { region: 2, valueHi: 0xcafe, width: 8 }),
  read(5_000_000_000, 0x4, 0x7, { region: 3, space: 2, cpu: -1 }),
  read(6_000_000_000, 0x3f8, 0x20, { space: 1, pcLo: 0x81000000, pcHi: 0xffffffff }),
);

/** Numbers of the rows that pass. */
function passing(text: string): number[] {
  const passes = compileFilter(parseFilter(text), twoDevices());
  return Array.from({ length: ROWS.length }, (_, row) => row).filter((row) => passes(ROWS, row));
}

describe('a filter', () => {
  test.each([
    ['', [0, 1, 2, 3, 4, 5]],
    ['read', [0, 3, 4, 5]],
    ['w', [1, 2]],
    ['op=read', [0, 3, 4, 5]],
    ['pio', [5]],
    ['space=mmio,config', [0, 1, 2, 3, 4]],
    ['device=gpu', [3]],
    ['device=0000:01:00.0', [3]],
    ['device!=nic0', [3]],
    ['bar=1', [2]],
    ['bar>=1', [2]],
    ['bar=config', [4]],
    ['region=BAR0', [0, 1, 3, 5]],
    ['bar0+0x400', [1]],
    ['+0x400', [1]],
    ['offset=0x8..0x10', [0, 2]],
    ['offset=0x0+0x8', [3, 4]],
    ['value=0xcafedeadbeef', [3]],
    ['value>0xffffffff', [3]],
    ['value<0x10', [2, 4]],
    ['value&0x80000000', [0, 3]],
    ['value&0xff=0xef', [3]],
    ['value&0xff!=0xef', [0, 1, 2, 4, 5]],
    ['width=8', [3]],
    ['cpu=1', [1]],
    ['cpu<0', [4]],
    ['pc=0xffffffff81000000', [5]],
    ['time<1ms', [0]],
    ['time>=3', [2, 3, 4, 5]],
    ['t=2ms', [1]],
    ['write bar0', [1]],
    ['write or width=8', [1, 2, 3]],
    ['not write', [0, 3, 4, 5]],
    ['!(write or config)', [0, 3, 5]],
    ['read and (width=8 or space=pio)', [3, 5]],
  ])('%j passes %j', (text, rows) => {
    expect(passing(text)).toEqual(rows);
  });

  test.each([
    ['bogus', 0, 'is no condition'],
    ['offset', 0, 'is no condition'],
    ['offset=', 7, 'should stand where the end is'],
    ['offset=zz', 7, 'is no number'],
    ['offset=0x10+0x0', 7, 'no length'],
    ['value=0x10000000000000000', 6, 'more than 64 bits'],
    ['device<nic0', 6, 'has no order'],
    ['op=both', 3, 'is no op'],
    ['cpu&1', 3, 'only a value has bits'],
    ['(read', 5, 'not closed'],
    ['read)', 4, 'has no beginning'],
    ['device="x', 7, 'quotation mark'],
    ['time=soon', 5, 'is no time'],
    [`${'('.repeat(60)}read${')'.repeat(60)}`, 50, 'nested too deeply'],
    ['read '.repeat(300), 1000, 'too long'],
  ])('%j is refused where it is wrong', (text, at, message) => {
    const error = errorOf(text);
    expect(error.message).toContain(message);
    expect(error.at).toBe(at);
  });

  test('of whatever text is a filter, or an error with its place', () => {
    const words = fc.constantFrom(
      'read',
      'bar0',
      'offset',
      '=',
      '0x1',
      '..',
      '(',
      ')',
      'or',
      '&',
      '"',
      '!',
    );
    const texts = fc.oneof(
      fc.string(),
      fc.array(words).map((parts) => parts.join(' ')),
    );
    fc.assert(
      fc.property(texts, (text) => {
        const error = thrownBy(() => passing(text));
        const isFine = error === undefined || error instanceof FilterError;
        expect(isFine).toBe(true);
        const at = error instanceof FilterError ? error.at : 0;
        expect(at >= 0 && at <= text.length).toBe(true);
      }),
    );
  });
});

function errorOf(text: string): FilterError {
  const error = thrownBy(() => parseFilter(text));
  if (error instanceof FilterError) return error;
  throw new Error(`${text} is taken`);
}

function thrownBy(work: () => unknown): unknown {
  try {
    work();
    return undefined;
  } catch (error) {
    return error;
  }
}
