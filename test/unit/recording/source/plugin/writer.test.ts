import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Failure } from '../../../../../src/base/failure.ts';
import type { PluginLink } from '../../../../../src/recording/source/plugin/link.ts';
import type { LogTail } from '../../../../../src/recording/source/plugin/log-tail.ts';
import { PluginWriter } from '../../../../../src/recording/source/plugin/writer.ts';
import { SegmentFile } from '../../../../../src/recording/spool/segment-file.ts';
import { goneFrame } from '../../../../../src/sources/plugin/frames.ts';
import { SOON } from '../../../../support/soon.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-writer-'));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dir, { recursive: true, force: true });
});

test('a single frame that the spool had no room for is written when it has', async () => {
  const heard: boolean[] = [];
  let onClose = (): void => undefined;
  const link = {
    connected: false,
    listenWith: (listener: { readonly onClose: () => void }) => (onClose = listener.onClose),
    close: () => undefined,
    hear: (on: boolean) => heard.push(on),
  };
  const log = { read: async () => [], close: async () => undefined };
  const path = join(dir, '000001');
  const writer = new PluginWriter(path, {
    link: link as unknown as PluginLink,
    log: log as unknown as LogTail,
    vm: undefined,
    disturbance: async () => undefined,
    failure: new Failure(),
    onProblem: () => undefined,
  });
  vi.spyOn(SegmentFile.prototype, 'append').mockReturnValueOnce(false);
  onClose();
  await vi.waitFor(() => expect(heard).toEqual([false, true]), SOON);
  expect(readFileSync(path)).toEqual(goneFrame());
  writer.stop();
});
