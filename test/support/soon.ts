import { setTimeout as delay } from 'node:timers/promises';

/** For `vi.waitFor`: longer than a busy machine takes to do what is waited for. */
export const SOON = { timeout: 50_000 };

/** How long a test with guests and programs waits for what is expected. */
export const PATIENCE_MS = 90_000;

/** Waits until something is there; the error says what was waited for, in words of then. */
export async function until<T>(
  what: string | (() => string),
  look: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) {
      const wanted = typeof what === 'string' ? what : what();
      throw new Error(`waited ${PATIENCE_MS / 1000} s in vain: ${wanted}`);
    }
    await delay(10);
  }
}
