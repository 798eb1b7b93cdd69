import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Terminal } from '../../../src/cli/terminal.ts';
import { SOON } from '../../support/soon.ts';

let said = '';
const unhandled = vi.fn<(error: unknown) => void>();
beforeEach(() => {
  said = '';
  vi.stubGlobal('process', process);
  for (const stream of [process.stdin, process.stderr]) {
    Object.defineProperty(stream, 'isTTY', { value: true, configurable: true });
  }
  process.stdin.setRawMode = () => process.stdin;
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += String(text);
    return true;
  });
  process.on('unhandledRejection', unhandled);
});
afterEach(() => {
  process.off('unhandledRejection', unhandled);
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  for (const stream of [process.stdin, process.stderr]) {
    Reflect.deleteProperty(stream, 'isTTY');
  }
});

test('a mark for which there is no room is said to be none, and ends nothing', async () => {
  const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  const terminal = new Terminal(
    {
      status: () => Promise.reject(new Error('no status either')),
      mark: () => Promise.reject(full),
      quit: () => undefined,
      interrupt: () => undefined,
    },
    true,
  );
  terminal.start();
  process.stdin.emit('data', Buffer.from('mlink up\r'));
  await vi.waitFor(
    () => expect(said).toContain('the mark could not be put in: ENOSPC: no space left on device'),
    SOON,
  );
  // The status line is drawn by a timer, where nobody waits, too.
  await vi.waitFor(() => expect(said).toContain('no status either'), SOON);
  terminal.stop();
  expect(unhandled).not.toHaveBeenCalled();
});
