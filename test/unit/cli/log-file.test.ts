import { readFileSync, statSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { log, logTo } from '../../../src/base/log.ts';
import { Workplace } from '../../support/cli.ts';

afterEach(() => logTo(undefined));

describe('a log', () => {
  test('has a line for each thing that happens, whatever is in it', () => {
    let text = '';
    logTo((line) => (text += line));
    log('qmp', () => '→ {"execute":"quit"}');
    log('spool', () => 'two\nlines');
    log('qemu', () => 'x'.repeat(5000));
    const [first = '', second = '', third = '', ...none] = text.split('\n');
    expect(first).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z qmp {7}→ \{"execute":"quit"\}$/);
    expect(second).toMatch(/ spool {5}two lines$/);
    expect(third).toMatch(/ x{4000}… \(1000 more characters\)$/);
    expect(none).toEqual(['']);
  });
  test('that nobody wants costs nothing', () => {
    let asked = 0;
    log('qmp', () => String(asked++));
    expect(asked).toBe(0);
  });
});

describe('--log', () => {
  const QUERY = ['status', '--json'];

  test('appends to a file that others cannot read', async () => {
    await using place = new Workplace();
    const first = await place.cli(['--log', 'bug.log', ...QUERY]);
    const second = await place.cli([...QUERY, '--log', 'bug.log']);
    expect([first.status, second.status]).toEqual([0, 0]);
    const lines = readFileSync(place.path('bug.log'), 'utf8').trimEnd().split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(
      /Z recording mmiobridge \d.*, Node v\d.*: --log bug.log status --json$/,
    );
    expect(statSync(place.path('bug.log')).mode & 0o077).toBe(0);
  });

  test('may be named in the environment', async () => {
    await using place = new Workplace();
    const env = { MMIOBRIDGE_LOG: place.path('env.log') };
    expect((await place.cli(QUERY, { env })).status).toBe(0);
    expect(readFileSync(place.path('env.log'), 'utf8')).toContain(': status --json\n');
  });

  test('that cannot be written is refused', async () => {
    await using place = new Workplace();
    const { status, stderr } = await place.cli(['--log', 'nowhere/bug.log', ...QUERY]);
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(
        /^mmiobridge: cannot write the log nowhere\/bug\.log\n.*ENOENT.*\n.*hint: /,
      ),
    ]);
  });
});
