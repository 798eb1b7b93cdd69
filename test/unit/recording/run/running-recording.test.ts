/** What becomes of a recording when something beside it fails. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { fakeRecording } from '../../../support/recording.ts';
import { SOON } from '../../../support/soon.ts';

const EVENT = { name: 'STOP', data: {}, timestampUs: 1_700_000_001_000_000 };

describe('a recording that cannot be taken off QEMU', () => {
  test('keeps its result, and says what is wrong with QEMU', async () => {
    await using fake = await fakeRecording({
      source: { detach: () => Promise.reject(new Error('QEMU wants its log back')) },
    });
    const ended = fake.recording.run();
    await fake.recording.end();
    expect(await ended).toMatchObject({ complete: true, counters: { reads: 0 } });
    expect(fake.notices).toEqual([
      'the recording could not be taken off QEMU as it should: QEMU wants its log back',
    ]);
    expect(fake.recording.guestState).toBe('running');
  });
});

describe('a source that fails where nobody waits', () => {
  test('ends the recording, and the guest stands still until it is resumed', async () => {
    await using fake = await fakeRecording();
    const ended = fake.recording.run();
    fake.failure.fail(new Error('the timer threw'));
    await expect(ended).rejects.toThrow('the timer threw');
    expect(fake.asked).toEqual(['pause', 'stop']);
    expect(fake.recording.guestState).toBe('paused');
    expect(existsSync(fake.folder.pausedFlag)).toBe(true);
  });

  test('says so where the guest cannot be paused, and claims nothing else', async () => {
    await using fake = await fakeRecording({
      vm: { pause: () => Promise.reject(new Error('no answer')) },
    });
    const ended = fake.recording.run();
    fake.failure.fail(new Error('the timer threw'));
    await expect(ended).rejects.toThrow('the timer threw');
    expect(fake.notices).toContain('the guest could not be paused: no answer');
    expect(fake.recording.guestState).toBe('running');
  });

  test('so does one that cannot finish', async () => {
    await using fake = await fakeRecording({
      source: { finish: () => Promise.reject(new Error('the last round failed')) },
    });
    const ended = fake.recording.run();
    fake.end();
    await expect(ended).rejects.toThrow('the last round failed');
  });
});

test('a state of the VM comes behind all that the guest did before it', async () => {
  let catchUp = (): void => undefined;
  const caughtUp = vi.fn<() => Promise<void>>(
    () => new Promise<void>((resolve) => (catchUp = resolve)),
  );
  await using fake = await fakeRecording({ source: { caughtUp } });
  const ended = fake.recording.run();
  fake.say(EVENT);
  fake.say({ ...EVENT, name: 'RESUME' });
  await vi.waitFor(() => expect(caughtUp).toHaveBeenCalledTimes(1), SOON);
  // Nothing is said before the source has caught up, and then one after the other.
  expect(existsSync(fake.folder.journal)).toBe(false);
  catchUp();
  await vi.waitFor(() => expect(caughtUp).toHaveBeenCalledTimes(2), SOON);
  expect(readFileSync(fake.folder.journal, 'utf8')).toContain('"state":"paused"');
  expect(readFileSync(fake.folder.journal, 'utf8')).not.toContain('running');
  catchUp();
  await vi.waitFor(
    () => expect(readFileSync(fake.folder.journal, 'utf8')).toContain('"state":"running"'),
    SOON,
  );
  await fake.recording.end();
  await ended;
});

test('a mark that cannot be written down is refused, and the recording goes on', async () => {
  await using fake = await fakeRecording({
    source: { caughtUp: () => Promise.reject(new Error('no space left')) },
  });
  const ended = fake.recording.run();
  await expect(fake.recording.mark('lost')).rejects.toThrow('no space left');
  await fake.recording.end();
  expect((await ended).complete).toBe(true);
});
