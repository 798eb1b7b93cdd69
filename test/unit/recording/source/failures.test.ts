/** What throws in a timer of a source is the recording's failure, and never an unhandled one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Failure } from '../../../../src/base/failure.ts';
import { KvmWriter } from '../../../../src/recording/source/kvm/writer.ts';
import { PcTap } from '../../../../src/recording/source/kvm/pc-tap.ts';
import type { KvmTrace } from '../../../../src/recording/source/kvm/trace.ts';
import type { PluginLink } from '../../../../src/recording/source/plugin/link.ts';
import type { LogTail } from '../../../../src/recording/source/plugin/log-tail.ts';
import { PluginWriter } from '../../../../src/recording/source/plugin/writer.ts';
import { FORMATS } from '../../../support/kvm-pages.ts';

let dir = '';
let failure: Failure;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mmiobridge-failures-'));
  failure = new Failure();
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A trace of a kernel that has taken its rings away. */
const broken = {
  formats: FORMATS,
  baseNs: 0n,
  drain: () => {
    throw new Error('the ring is gone');
  },
  trace: () => undefined,
  close: () => undefined,
} as unknown as KvmTrace;

test("of KVM's records on their way into the spool", async () => {
  const writer = new KvmWriter(broken, join(dir, '000001'), {
    failure,
    onProblem: () => undefined,
  });
  await expect(failure.promise).rejects.toThrow('the ring is gone');
  writer.stop();
});

test("of KVM's records beside QEMU's log", async () => {
  const tap = new PcTap({
    trace: broken,
    vcpuOfThread: new Map(),
    aligned: true,
    start: { startSec: 1, startNs: 0 },
    isRecorded: () => true,
    failure,
  });
  await expect(failure.promise).rejects.toThrow('the ring is gone');
  tap.close();
});

test("of QEMU's log beside the plugin's records", async () => {
  const link = {
    connected: false,
    listenWith: () => undefined,
    close: () => undefined,
    hear: () => undefined,
  };
  const log = { read: () => Promise.reject(new Error('EIO')), close: async () => undefined };
  const writer = new PluginWriter(join(dir, '000001'), {
    link: link as unknown as PluginLink,
    log: log as unknown as LogTail,
    vm: undefined,
    disturbance: async () => undefined,
    failure,
    onProblem: () => undefined,
  });
  await expect(failure.promise).rejects.toThrow('EIO');
  writer.stop();
});
