import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/architecture.test.ts'],
          testTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'guest',
          include: ['test/guest/**/*.test.ts'],
          // Guests are software-emulated, and wait for much: two files at a time keep two cores busy.
          sequence: { groupOrder: 1 },
          maxWorkers: 2,
          testTimeout: 240_000,
          hookTimeout: 240_000,
        },
      },
      {
        test: {
          name: 'passthrough',
          include: ['test/passthrough/**/*.test.ts'],
          // All share one L1, which takes both cores from the first test to the end: after all others.
          globalSetup: 'test/support/lab-setup.ts',
          sequence: { groupOrder: 3 },
          fileParallelism: false,
          // A guest that crashes in the emulation is given another try.
          testTimeout: 1_800_000,
          hookTimeout: 1_800_000,
        },
      },
      {
        test: {
          name: 'browser',
          include: ['test/browser/**/*.test.ts'],
          // A browser, a server and a guest: one file at a time, too.
          sequence: { groupOrder: 2 },
          fileParallelism: false,
          testTimeout: 240_000,
          hookTimeout: 240_000,
          // A page may be about to draw what is expected of it.
          expect: { poll: { timeout: 60_000 } },
        },
      },
    ],
  },
});
