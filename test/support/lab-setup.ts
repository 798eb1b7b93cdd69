import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { scriptLines } from './scripts.ts';

declare module 'vitest' {
  interface ProvidedContext {
    readonly lab: { readonly state: string; readonly owner: number };
  }
}

/**
 * For vitest's globalSetup: one L1 for all test files of a run. The first file that asks for it
 * boots it (`Lab.start`); here is only its place, and its end.
 */
export default function setup(project: TestProject): () => Promise<void> {
  const state = join(realpathSync(mkdtempSync(join(tmpdir(), 'mmiobridge-lab-'))), 'l1');
  project.provide('lab', { state, owner: process.pid });
  return async () => {
    await scriptLines('lab/l1.sh', ['stop', state]);
    rmSync(join(state, '..'), { recursive: true, force: true });
  };
}
