/** For `vi.waitFor`: longer than a busy machine takes to do what is waited for. */
export const SOON = { timeout: 20_000 };
