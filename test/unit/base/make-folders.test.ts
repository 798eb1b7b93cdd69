import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { makeFolders } from '../../../src/base/make-folders.ts';
import { Workplace } from '../../support/cli.ts';

describe('a folder with those above it', () => {
  test('is made, with this mode, and the first that was missing is told', async () => {
    await using place = new Workplace();
    const path = place.path('a/b/c');
    expect(await makeFolders(path, 0o700)).toBe(place.path('a'));
    for (const name of ['a', 'a/b', 'a/b/c']) {
      expect(statSync(place.path(name)).mode & 0o777).toBe(0o700);
    }
    expect(await makeFolders(path)).toBeUndefined();
    expect(await makeFolders(place.path('a/b/d'))).toBe(place.path('a/b/d'));
  });

  test('may be a link to one that is there', async () => {
    await using place = new Workplace();
    mkdirSync(place.path('there'));
    symlinkSync('there', place.path('link'));
    expect(await makeFolders(place.path('link'))).toBeUndefined();
    expect(await makeFolders(place.path('link/below'))).toBe(place.path('link/below'));
    expect(statSync(place.path('there/below')).isDirectory()).toBe(true);
  });

  test.each(['/proc/none', '/proc/none/below', '/sys/none'])(
    '%s cannot be made, and says so',
    async (path) => {
      await expect(makeFolders(path)).rejects.toThrow(/^(ENOENT|EPERM|EACCES|EROFS): .*mkdir/);
    },
  );

  test.each(['file', 'file/below', 'nowhere'])('%s is no folder, and is left', async (name) => {
    await using place = new Workplace();
    writeFileSync(place.path('file'), 'mine');
    symlinkSync('gone', place.path('nowhere'));
    await expect(makeFolders(place.path(name))).rejects.toThrow(/^(EEXIST|ENOTDIR): /);
    expect(statSync(place.path('file')).isFile()).toBe(true);
  });

  test('is made by many at once, while somebody takes it away', async () => {
    await using place = new Workplace();
    const making = Array.from({ length: 50 }, () => makeFolders(place.path('a/b/c')));
    const removing = rm(place.path('a'), { recursive: true, force: true }).catch(() => undefined);
    await Promise.all([...making, removing]);
    await makeFolders(place.path('a/b/c'));
    expect(statSync(place.path('a/b/c')).isDirectory()).toBe(true);
  });
});
