/** For `vi.waitFor`: longer than a busy machine takes to do what is waited for. */
export const SOON = { timeout: 50_000 };

/** How long a test with guests and programs waits for what is expected. */
export const PATIENCE_MS = 90_000;
