import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Workplace } from '../support/cli.ts';
import { hammerGuest } from '../support/guests.ts';

test('a log of a recording tells what QEMU was asked and answered, and what became of it', async () => {
  await using place = new Workplace();
  const guest = await hammerGuest({ iterations: 1000 });
  const { status, stderr } = await place.cli([
    'record',
    '--log',
    'bug.log',
    '--device',
    'dut',
    '-o',
    'x.mmiocap',
    '--',
    ...guest,
  ]);
  expect(status, stderr).toBe(0);
  const log = readFileSync(place.path('bug.log'), 'utf8');
  for (const told of [
    /Z recording mmiobridge .*: record --log bug\.log /,
    /Z qemu {6}process \d+: qemu-system-x86_64 /,
    /Z qmp {7}→ \{"execute":"query-cpus-fast","id":\d+\}$/m,
    /Z qmp {7}← \{"return": \[\{"thread-id"/,
    /Z recording session \{"id":"/,
    /Z qemu {6}process \d+ ended: status 33$/m,
    /Z recording ended: \{"reads":1000,"writes":1000,/,
  ]) {
    expect(log).toMatch(told);
  }
});
