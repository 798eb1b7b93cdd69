import { afterEach, expect, test, vi } from 'vitest';
import { Failure } from '../../../src/base/failure.ts';
import { wallClockMs } from '../../../src/base/wall-clock.ts';

afterEach(() => vi.restoreAllMocks());

test('the first failure settles it: thrown, rejected, or said', async () => {
  const failure = new Failure();
  failure.guard(() => undefined);
  failure.guard(() => Promise.reject(new Error('first')));
  failure.guard(() => {
    throw new Error('second');
  });
  await expect(failure.promise).rejects.toThrow('second');
});

test('a failure that nobody awaits is no unhandled rejection', async () => {
  const unhandled = vi.fn<() => void>();
  process.on('unhandledRejection', unhandled);
  new Failure().fail(new Error('alone'));
  await new Promise((resolve) => setTimeout(resolve, 5));
  process.off('unhandledRejection', unhandled);
  expect(unhandled).not.toHaveBeenCalled();
});

test('session time follows when the wall clock is set, forward and back', () => {
  const now = Date.now.bind(Date);
  const expectAhead = (aheadMs: number) => {
    const before = now();
    const ms = wallClockMs() - aheadMs;
    expect(ms).toBeGreaterThan(before - 5);
    expect(ms).toBeLessThan(now() + 5);
  };
  expectAhead(0);
  const step = vi.spyOn(Date, 'now').mockImplementation(() => now() + 3_600_000);
  expectAhead(3_600_000);
  step.mockImplementation(() => now() - 60_000);
  expectAhead(-60_000);
  step.mockRestore();
  expectAhead(0);
});
